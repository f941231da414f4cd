"""FastViT's names: ours, Apple's and timm's.

A round trip is bit-equal. One tensor alone is laid out otherwise on the way: the projection that Apple's image towers
end in, `head.proj`, is transposed there, and has no bias, which here and in timm's models is zero to begin with.
Sources: the released FastViT, MobileCLIP and FastVLM checkpoints (training and "reparam" form), timm's fastvit models
(training and reparameterized).
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal, NamedTuple

from torch import Tensor

from hybridvit.card import Form
from hybridvit.errors import CheckpointError
from hybridvit.models.key_map import KeyMap, Row, Table


class Names(NamedTuple):
    """One module or parameter under its three names.

    Apple numbers stages, patch embeddings and positional encodings in one sequence, `network.N`; here they are
    written as `stages.#.blocks`, `.downsample` and `.position`, and `_apple_addresses` translates.
    """

    ours: str
    apple: str
    timm: str
    block: Literal["", "repmixer", "attention"] = (
        ""  # our name alone does not tell a RepMixer's norm from an attention's
    )


def _branches(ours: str, apple: str, timm: str) -> tuple[Names, ...]:
    """The rows of an over-parameterised convolution at the given places."""
    return (
        Names(f"{ours}.kxk.conv", f"{apple}.rbr_conv.0.conv", f"{timm}.conv_kxk.0.conv"),
        Names(f"{ours}.kxk.norm", f"{apple}.rbr_conv.0.bn", f"{timm}.conv_kxk.0.bn"),
        Names(f"{ours}.scale.conv", f"{apple}.rbr_scale.conv", f"{timm}.conv_scale.conv"),
        Names(f"{ours}.scale.norm", f"{apple}.rbr_scale.bn", f"{timm}.conv_scale.bn"),
        Names(f"{ours}.skip", f"{apple}.rbr_skip", f"{timm}.identity"),
    )


BLOCK, DOWN = "stages.#.blocks.#", "stages.#.downsample"
ROWS: tuple[Names, ...] = (
    # training form only
    *_branches("stem.#.conv", "patch_embed.#", "stem.#"),
    *_branches(f"{DOWN}.project.conv", f"{DOWN}.proj.1", f"{DOWN}.proj.1"),
    *_branches(f"{BLOCK}.mixer.mixer", f"{BLOCK}.token_mixer.mixer", f"{BLOCK}.token_mixer.mixer"),
    *_branches("expand.conv", "conv_exp", "final_conv"),
    Names(f"{DOWN}.large.kxk.conv", f"{DOWN}.proj.0.lkb_origin.conv", f"{DOWN}.proj.0.large_conv.conv"),
    Names(f"{DOWN}.large.kxk.norm", f"{DOWN}.proj.0.lkb_origin.bn", f"{DOWN}.proj.0.large_conv.bn"),
    Names(f"{DOWN}.large.small.conv", f"{DOWN}.proj.0.small_conv.conv", f"{DOWN}.proj.0.small_conv.conv"),
    Names(f"{DOWN}.large.small.norm", f"{DOWN}.proj.0.small_conv.bn", f"{DOWN}.proj.0.small_conv.bn"),
    Names("stages.#.position.conv", "stages.#.position.pe", "stages.#.pos_emb.pos_enc"),
    Names(
        f"{BLOCK}.mixer.norm",
        f"{BLOCK}.token_mixer.norm.rbr_skip",
        f"{BLOCK}.token_mixer.norm.identity",
        block="repmixer",
    ),
    Names(
        f"{BLOCK}.mixer.layer_scale",
        f"{BLOCK}.token_mixer.layer_scale",
        f"{BLOCK}.token_mixer.layer_scale.gamma",
        block="repmixer",
    ),
    # released form only: one convolution in place of each of the above
    Names("stem.#.conv", "patch_embed.#.reparam_conv", "stem.#.reparam_conv"),
    Names(f"{DOWN}.large", f"{DOWN}.proj.0.lkb_reparam", f"{DOWN}.proj.0.reparam_conv"),
    Names(f"{DOWN}.project.conv", f"{DOWN}.proj.1.reparam_conv", f"{DOWN}.proj.1.reparam_conv"),
    Names("stages.#.position", "stages.#.position.reparam_conv", "stages.#.pos_emb.reparam_conv"),
    Names(f"{BLOCK}.mixer", f"{BLOCK}.token_mixer.reparam_conv", f"{BLOCK}.token_mixer.reparam_conv"),
    Names("expand.conv", "conv_exp.reparam_conv", "final_conv.reparam_conv"),
    # both forms
    Names(f"{BLOCK}.mixer.norm", f"{BLOCK}.norm", f"{BLOCK}.norm", block="attention"),
    Names(f"{BLOCK}.mixer.to_qkv", f"{BLOCK}.token_mixer.qkv", f"{BLOCK}.token_mixer.qkv"),
    Names(f"{BLOCK}.mixer.to_out", f"{BLOCK}.token_mixer.proj", f"{BLOCK}.token_mixer.proj"),
    Names(f"{BLOCK}.mixer.layer_scale", f"{BLOCK}.layer_scale_1", f"{BLOCK}.layer_scale_1.gamma", block="attention"),
    Names(f"{BLOCK}.ffn.layer_scale", f"{BLOCK}.layer_scale_2", f"{BLOCK}.layer_scale_2.gamma", block="attention"),
    Names(f"{BLOCK}.ffn.layer_scale", f"{BLOCK}.layer_scale", f"{BLOCK}.layer_scale.gamma", block="repmixer"),
    Names(f"{BLOCK}.ffn.depthwise.kxk.conv", f"{BLOCK}.convffn.conv.conv", f"{BLOCK}.mlp.conv.conv"),
    Names(f"{BLOCK}.ffn.depthwise.kxk.norm", f"{BLOCK}.convffn.conv.bn", f"{BLOCK}.mlp.conv.bn"),
    Names(f"{BLOCK}.ffn.expand", f"{BLOCK}.convffn.fc1", f"{BLOCK}.mlp.fc1"),
    Names(f"{BLOCK}.ffn.project", f"{BLOCK}.convffn.fc2", f"{BLOCK}.mlp.fc2"),
    Names(f"{DOWN}.squeeze_excite.reduce", f"{DOWN}.proj.0.se.fc1", f"{DOWN}.proj.0.se.fc1"),
    Names(f"{DOWN}.squeeze_excite.expand", f"{DOWN}.proj.0.se.fc2", f"{DOWN}.proj.0.se.fc2"),
    Names("expand.squeeze_excite.reduce", "conv_exp.se.reduce", "final_conv.se.fc1"),
    Names("expand.squeeze_excite.expand", "conv_exp.se.expand", "final_conv.se.fc2"),
    Names("head.fc", "head", "head.fc"),
)

CLASSIFIER, CLASSIFIER_BIAS = "head.fc.weight", "head.fc.bias"
PROJECTION = "head.proj"

APPLE = Table(Row(row.ours, row.apple, row.block) for row in ROWS)
TIMM = Table(Row(row.ours, row.timm, row.block) for row in ROWS)
FORMS = "training form or folded with fold(model, released=True)"


def is_ours(names: Collection[str]) -> bool:
    """Whether these are our names of a FastViT."""
    return any(re.match(r"stages\.\d+\.blocks\.", name) for name in names)


def form_of(names: Collection[str]) -> Form:
    """training, released or folded, from our names of a FastViT."""
    if any(name.endswith(".ffn.depthwise.weight") for name in names):
        return "folded"
    return "released" if "stem.0.conv.bias" in names else "training"


class AppleNames(KeyMap):
    """Names of the released checkpoints."""

    title, forms = "Apple's FastViT", FORMS

    def recognises(self, names: Collection[str]) -> bool:
        return any(name.startswith("patch_embed.0.") for name in names)

    def to_ours(self, names: Collection[str]) -> dict[str, str]:
        addresses = _apple_addresses(names)
        staged = {
            name: re.sub(r"^network\.\d+", lambda match: addresses.get(match[0], match[0]), name) for name in names
        }
        translated = {name: APPLE.to_ours(place) or name for name, place in staged.items()}
        return translated | {name: CLASSIFIER for name in names if name == PROJECTION}

    def to_theirs(self, names: Collection[str]) -> dict[str, tuple[str, ...]]:
        addresses = _our_addresses(names)
        place = re.compile(r"^stages\.\d+\.(downsample|position|blocks)")
        translated: dict[str, tuple[str, ...]] = {
            name: (place.sub(lambda match: addresses[match[0]], theirs),)
            for name, theirs in _with_block_kinds(APPLE, names).items()
        }
        if CLASSIFIER in names and _is_image_tower(names):
            translated |= {CLASSIFIER: (PROJECTION,), CLASSIFIER_BIAS: ()}
        return translated

    def value(self, name: str, tensor: Tensor) -> Tensor:
        return tensor.mT if name == PROJECTION and tensor.ndim == 2 else tensor

    def their_value(self, theirs: str, tensor: Tensor) -> Tensor:
        return tensor.mT.contiguous() if theirs == PROJECTION else tensor

    def implied(self, names: Collection[str], tensors: Mapping[str, Any]) -> dict[str, Any]:
        """The bias of a projection: zeros, or for a table of shapes theirs."""
        weight = tensors.get(CLASSIFIER) if PROJECTION in names and CLASSIFIER_BIAS not in tensors else None
        return {CLASSIFIER_BIAS: weight.new_zeros(len(weight))} if isinstance(weight, Tensor) and weight.ndim else {}

    def check_left_out(self, name: str, tensor: Tensor) -> None:
        if tensor.any():
            raise CheckpointError(
                f"'{name}' is not zero, but the projection of {self.title} has no bias: weights that were trained on "
                "with one cannot be written in this layout. Use timm's names, or save_checkpoint."
            )


class TimmNames(KeyMap):
    """Names of timm's `fastvit_*`."""

    title, forms = "timm's FastViT", FORMS

    def recognises(self, names: Collection[str]) -> bool:
        return any(re.match(r"stem\.0\.(conv_kxk|conv_scale|reparam_conv)\.", name) for name in names)

    def to_ours(self, names: Collection[str]) -> dict[str, str]:
        return {name: TIMM.to_ours(name) or name for name in names}

    def to_theirs(self, names: Collection[str]) -> dict[str, tuple[str, ...]]:
        return {name: (theirs,) for name, theirs in _with_block_kinds(TIMM, names).items()}


KEY_MAPS: dict[str, KeyMap] = {"apple": AppleNames(), "timm": TimmNames()}


def _is_image_tower(names: Collection[str]) -> bool:
    """Whether these are our names of one of MobileCLIP's or FastVLM's towers, which end in a projection."""
    return any(name.startswith("stages.4.") or ".downsample.squeeze_excite." in name for name in names)


def _with_block_kinds(table: Table, names: Collection[str]) -> dict[str, str]:
    """Our names -> the table's, by the rows of the kind of block that each belongs to."""
    attention = {name.removesuffix("mixer.to_qkv.weight") for name in names if name.endswith(".mixer.to_qkv.weight")}
    kinds = {name: "attention" if ".".join(name.split(".")[:4]) + "." in attention else "repmixer" for name in names}
    translated = {name: table.to_theirs(name, kind) for name, kind in kinds.items()}
    return {name: theirs for name, theirs in translated.items() if theirs is not None}


def _apple_addresses(names: Iterable[str]) -> dict[str, str]:
    """Apple's `network.N` -> our `stages.S.(blocks|downsample|position)`: each downsample begins a stage."""
    kinds: dict[int, str] = {}
    for name in names:
        if match := re.match(r"network\.(\d{1,9})\.(proj|pe|reparam_conv|\d+)\.", name):
            part = match[2]
            kinds[int(match[1])] = {"proj": "downsample", "pe": "position", "reparam_conv": "position"}.get(
                part, "blocks"
            )
    addresses, stage = {}, 0
    for number in sorted(kinds):
        stage += kinds[number] == "downsample"
        addresses[f"network.{number}"] = f"stages.{stage}.{kinds[number]}"
    return addresses


def _our_addresses(names: Iterable[str]) -> dict[str, str]:
    """The inverse of `_apple_addresses`, from our names."""
    kinds = ("downsample", "position", "blocks")  # the order within a stage
    matches = (re.match(r"stages\.(\d+)\.(downsample|position|blocks)\.", name) for name in names)
    places = sorted({(int(match[1]), kinds.index(match[2])) for match in matches if match})
    return {f"stages.{stage}.{kinds[kind]}": f"network.{number}" for number, (stage, kind) in enumerate(places)}
