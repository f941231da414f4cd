"""Our parameter names, Apple's and timm's: one table, read in both directions.

No tensor changes shape or value on the way, so a round trip is bit-equal. Sources: the released FastViT checkpoints
(training and "reparam" form) and timm's fastvit models (training and reparameterized).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeVar

from hybridvit.card import Form
from hybridvit.errors import CheckpointError

Naming = Literal["ours", "apple", "timm"]
Block = Literal["any", "repmixer", "attention"]
Value = TypeVar("Value")


@dataclass(frozen=True)
class Row:
    """One module or parameter under its three names. `#` stands for a number, the same ones in each column.

    Apple numbers stages, patch embeddings and positional encodings in one sequence, `network.N`; here they are
    written as `stages.#.blocks`, `.downsample` and `.position`, and `_apple_addresses` translates.
    """

    ours: str
    apple: str
    timm: str
    block: Block = "any"  # our name alone does not tell a RepMixer's norm from an attention's


def _branches(ours: str, apple: str, timm: str) -> tuple[Row, ...]:
    """The rows of an over-parameterised convolution at the given places."""
    return (
        Row(f"{ours}.kxk.conv", f"{apple}.rbr_conv.0.conv", f"{timm}.conv_kxk.0.conv"),
        Row(f"{ours}.kxk.norm", f"{apple}.rbr_conv.0.bn", f"{timm}.conv_kxk.0.bn"),
        Row(f"{ours}.scale.conv", f"{apple}.rbr_scale.conv", f"{timm}.conv_scale.conv"),
        Row(f"{ours}.scale.norm", f"{apple}.rbr_scale.bn", f"{timm}.conv_scale.bn"),
        Row(f"{ours}.skip", f"{apple}.rbr_skip", f"{timm}.identity"),
    )


BLOCK, DOWN = "stages.#.blocks.#", "stages.#.downsample"
ROWS: tuple[Row, ...] = (
    # training form only
    *_branches("stem.#.conv", "patch_embed.#", "stem.#"),
    *_branches(f"{DOWN}.project.conv", f"{DOWN}.proj.1", f"{DOWN}.proj.1"),
    *_branches(f"{BLOCK}.mixer.mixer", f"{BLOCK}.token_mixer.mixer", f"{BLOCK}.token_mixer.mixer"),
    *_branches("expand.conv", "conv_exp", "final_conv"),
    Row(f"{DOWN}.large.kxk.conv", f"{DOWN}.proj.0.lkb_origin.conv", f"{DOWN}.proj.0.large_conv.conv"),
    Row(f"{DOWN}.large.kxk.norm", f"{DOWN}.proj.0.lkb_origin.bn", f"{DOWN}.proj.0.large_conv.bn"),
    Row(f"{DOWN}.large.small.conv", f"{DOWN}.proj.0.small_conv.conv", f"{DOWN}.proj.0.small_conv.conv"),
    Row(f"{DOWN}.large.small.norm", f"{DOWN}.proj.0.small_conv.bn", f"{DOWN}.proj.0.small_conv.bn"),
    Row("stages.#.position.conv", "stages.#.position.pe", "stages.#.pos_emb.pos_enc"),
    Row(
        f"{BLOCK}.mixer.norm",
        f"{BLOCK}.token_mixer.norm.rbr_skip",
        f"{BLOCK}.token_mixer.norm.identity",
        block="repmixer",
    ),
    Row(
        f"{BLOCK}.mixer.layer_scale",
        f"{BLOCK}.token_mixer.layer_scale",
        f"{BLOCK}.token_mixer.layer_scale.gamma",
        block="repmixer",
    ),
    # released form only: one convolution in place of each of the above
    Row("stem.#.conv", "patch_embed.#.reparam_conv", "stem.#.reparam_conv"),
    Row(f"{DOWN}.large", f"{DOWN}.proj.0.lkb_reparam", f"{DOWN}.proj.0.reparam_conv"),
    Row(f"{DOWN}.project.conv", f"{DOWN}.proj.1.reparam_conv", f"{DOWN}.proj.1.reparam_conv"),
    Row("stages.#.position", "stages.#.position.reparam_conv", "stages.#.pos_emb.reparam_conv"),
    Row(f"{BLOCK}.mixer", f"{BLOCK}.token_mixer.reparam_conv", f"{BLOCK}.token_mixer.reparam_conv"),
    Row("expand.conv", "conv_exp.reparam_conv", "final_conv.reparam_conv"),
    # both forms
    Row(f"{BLOCK}.mixer.norm", f"{BLOCK}.norm", f"{BLOCK}.norm", block="attention"),
    Row(f"{BLOCK}.mixer.to_qkv", f"{BLOCK}.token_mixer.qkv", f"{BLOCK}.token_mixer.qkv"),
    Row(f"{BLOCK}.mixer.to_out", f"{BLOCK}.token_mixer.proj", f"{BLOCK}.token_mixer.proj"),
    Row(f"{BLOCK}.mixer.layer_scale", f"{BLOCK}.layer_scale_1", f"{BLOCK}.layer_scale_1.gamma", block="attention"),
    Row(f"{BLOCK}.ffn.layer_scale", f"{BLOCK}.layer_scale_2", f"{BLOCK}.layer_scale_2.gamma", block="attention"),
    Row(f"{BLOCK}.ffn.layer_scale", f"{BLOCK}.layer_scale", f"{BLOCK}.layer_scale.gamma", block="repmixer"),
    Row(f"{BLOCK}.ffn.depthwise.kxk.conv", f"{BLOCK}.convffn.conv.conv", f"{BLOCK}.mlp.conv.conv"),
    Row(f"{BLOCK}.ffn.depthwise.kxk.norm", f"{BLOCK}.convffn.conv.bn", f"{BLOCK}.mlp.conv.bn"),
    Row(f"{BLOCK}.ffn.expand", f"{BLOCK}.convffn.fc1", f"{BLOCK}.mlp.fc1"),
    Row(f"{BLOCK}.ffn.project", f"{BLOCK}.convffn.fc2", f"{BLOCK}.mlp.fc2"),
    Row("expand.squeeze_excite.reduce", "conv_exp.se.reduce", "final_conv.se.fc1"),
    Row("expand.squeeze_excite.expand", "conv_exp.se.expand", "final_conv.se.fc2"),
    Row("head.fc", "head", "head.fc"),
)

LEAVES = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
"""What may follow a row's name; parameters that are no module, such as layer scales, have nothing after them."""


def naming_of(names: Iterable[str], source: object = "The source") -> Naming:
    """Which of the three namings a file uses, from its keys. Raises CheckpointError, naming `source`, if none."""
    names = list(names)
    if any(name.startswith("patch_embed.0.") for name in names):
        return "apple"
    if any(re.match(r"stem\.0\.(conv_kxk|conv_scale|reparam_conv)\.", name) for name in names):
        return "timm"
    if any(re.match(r"(stem|stages|head|expand)\.", name) for name in names):
        return "ours"
    shown = ", ".join(f"'{name}'" for name in names[:5])
    raise CheckpointError(
        f"{source} holds no FastViT weights: its names ({shown}, {len(names)} in all) are neither hybridvit's, nor "
        "Apple's, nor timm's. Check that this is the right file."
    )


def form_of(names: Iterable[str]) -> Form:
    """training, released or folded, from our names."""
    names = set(names)
    if any(re.search(r"\.ffn\.depthwise\.weight$", name) for name in names):
        return "folded"
    return "released" if "stem.0.conv.bias" in names else "training"


def to_ours(tensors: dict[str, Value], naming: Naming) -> dict[str, Value]:
    """`tensors` under our names, in the same order. A name without a row is kept, for the caller's report of keys."""
    if naming == "ours":
        return dict(tensors)
    addresses = _apple_addresses(tensors) if naming == "apple" else {}
    renamed = {}
    for name, tensor in tensors.items():
        staged = re.sub(r"^network\.\d+", lambda match: addresses.get(match[0], match[0]), name)
        renamed[_translate(staged, naming, "ours") or name] = tensor
    return renamed


def from_ours(tensors: dict[str, Value], naming: Naming) -> dict[str, Value]:
    """`tensors` under Apple's or timm's names, in the same order.

    Raises CheckpointError for weights that have no name there: the fully folded form, and options that the released
    models do not have.
    """
    attention = {name.removesuffix("to_qkv.weight") for name in tensors if name.endswith(".mixer.to_qkv.weight")}
    attention |= {mixer.removesuffix("mixer.") + "ffn." for mixer in attention}
    addresses = _our_addresses(tensors)
    renamed = {}
    for name, tensor in tensors.items():
        block: Block = "attention" if ".".join(name.split(".")[:5]) + "." in attention else "repmixer"
        upstream = _translate(name, "ours", naming, block)
        if upstream is None:
            raise CheckpointError(
                f"'{name}' has no name in {naming}'s FastViT. Only the released architecture does, in training form or "
                "folded with fold(model, released=True); save other models with save_checkpoint."
            )
        if naming == "apple":
            upstream = re.sub(
                r"^stages\.\d+\.(downsample|position|blocks)", lambda match: addresses[match[0]], upstream
            )
        renamed[upstream] = tensor
    return renamed


@cache
def _patterns(naming: Naming) -> tuple[tuple[re.Pattern[str], Row], ...]:
    leaf = rf"(?P<leaf>(?:\.(?:{'|'.join(LEAVES)}))?)"
    return tuple((re.compile(re.escape(_name(row, naming)).replace(r"\#", r"(\d+)") + leaf), row) for row in ROWS)


def _name(row: Row, naming: Naming) -> str:
    return {"ours": row.ours, "apple": row.apple, "timm": row.timm}[naming]


def _translate(name: str, source: Naming, target: Naming, block: Block = "any") -> str | None:
    """`name` in the target's naming by the first row that fits, or None. `block` "any" tries all rows."""
    for pattern, row in _patterns(source):
        if "any" not in (block, row.block) and block != row.block:
            continue
        if match := pattern.fullmatch(name):
            return _name(row, target).replace("#", "{}").format(*match.groups()) + match["leaf"]
    return None


def _apple_addresses(names: Iterable[str]) -> dict[str, str]:
    """Apple's `network.N` -> our `stages.S.(blocks|downsample|position)`: each downsample begins a stage."""
    kinds: dict[int, str] = {}
    for name in names:
        if match := re.match(r"network\.(\d+)\.(proj|pe|reparam_conv|\d+)\.", name):
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
