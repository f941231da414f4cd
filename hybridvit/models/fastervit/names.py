"""FasterViT's names: ours and those of NVIDIA's released checkpoints.

No tensor changes shape or value on the way, so a round trip is bit-equal.
"""

import re
from collections.abc import Collection

from hybridvit.card import Form
from hybridvit.models.key_map import KeyMap, Row, Table

STAGE, BLOCK, THEIRS = "stages.#.body", "stages.#.body.blocks.#", "levels.#.blocks.#"

POSITION = {"mlp.hidden": "cpb_mlp.0", "mlp.out": "cpb_mlp.2"}  # an MLP over coordinates
ATTENTION = {"to_qkv": "qkv", "to_out": "proj"} | {
    f"bias.{ours}": f"pos_emb_funct.{theirs}" for ours, theirs in POSITION.items()
}
MLP = {"expand": "fc1", "project": "fc2"}


def _rows(ours: str, theirs: str, inside: dict[str, str]) -> tuple[Row, ...]:
    """What is inside of a module of attention stages."""
    return tuple(Row(f"{ours}.{name}", f"{theirs}.{other}", "attention") for name, other in inside.items())


def _branch(ours: str, theirs: str, inside: dict[str, str], norm: str, scale: str) -> tuple[Row, ...]:
    """A residual branch, whose norm and layer scale are not inside of its module there."""
    return _rows(f"{BLOCK}.{ours}", THEIRS, {"norm": norm, "layer_scale": scale}) + _rows(
        f"{BLOCK}.{ours}", f"{THEIRS}.{theirs}", inside
    )


ROWS: tuple[Row, ...] = (
    Row("stem.0.conv", "patch_embed.conv_down.0"),
    Row("stem.0.norm", "patch_embed.conv_down.1"),
    Row("stem.1.conv", "patch_embed.conv_down.3"),
    Row("stem.1.norm", "patch_embed.conv_down.4"),
    # theirs ends a stage, ours begins the next: the numbers here are ours, and `_renumbered` translates
    Row("stages.#.downsample.norm", "levels.#.downsample.norm"),
    Row("stages.#.downsample.conv", "levels.#.downsample.reduction.0"),
    # convolutional stages
    Row(f"{STAGE}.#.conv1", f"{THEIRS}.conv1", "conv"),
    Row(f"{STAGE}.#.norm1", f"{THEIRS}.norm1", "conv"),
    Row(f"{STAGE}.#.conv2", f"{THEIRS}.conv2", "conv"),
    Row(f"{STAGE}.#.norm2", f"{THEIRS}.norm2", "conv"),
    Row(f"{STAGE}.#.layer_scale", f"{THEIRS}.gamma", "conv"),
    # attention stages
    Row(f"{STAGE}.carriers.conv", "levels.#.global_tokenizer.pos_embed"),
    *_rows(f"{BLOCK}.position.embedding", f"{THEIRS}.pos_embed", POSITION),
    *_branch("attention", "attn", ATTENTION, "norm1", "gamma3"),
    *_branch("mlp", "mlp", MLP, "norm2", "gamma4"),
    *_rows(f"{BLOCK}.carrier_position", f"{THEIRS}.hat_pos_embed", POSITION),
    *_branch("carrier_attention", "hat_attn", ATTENTION, "hat_norm1", "gamma1"),
    *_branch("carrier_mlp", "hat_mlp", MLP, "hat_norm2", "gamma2"),
    Row("head.norm", "norm"),
    Row("head.fc", "head"),
)
NVIDIA = Table(ROWS)

DERIVED = ("relative_bias", "relative_coords_table", "relative_position_index")
"""Their buffers that can be computed from the weights and the window."""

TOKENIZER, TOKENIZER_AGAIN = ".global_tokenizer.pos_embed.", ".global_tokenizer.to_global_feature.pos."
"""The two names of one layer, which they list twice."""


def is_ours(names: Collection[str]) -> bool:
    """Whether these are our names of a FasterViT."""
    return any(re.match(r"stages\.\d+\.body\.", name) for name in names)


def form_of(names: Collection[str]) -> Form:
    """training or folded, from our names of a FasterViT; nobody released another form."""
    return "folded" if "stem.0.conv.bias" in names and "stem.0.norm.weight" not in names else "training"


class NvidiaNames(KeyMap):
    """Names of the released checkpoints."""

    title, forms = "NVIDIA's FasterViT", "training form"

    def recognises(self, names: Collection[str]) -> bool:
        return any(name.startswith("patch_embed.conv_down.") for name in names)

    def to_ours(self, names: Collection[str]) -> dict[str, str]:
        attending = re.compile(r"(levels\.\d+\.blocks\.)\d+\.attn\.")
        attention_stages = tuple({match[1] for match in map(attending.match, names) if match})
        translated = {}
        for name in names:
            if name.rsplit(".", 1)[-1] in DERIVED:
                continue
            kind = "attention" if name.startswith(attention_stages) else "conv"
            theirs = _renumbered(name.replace(TOKENIZER_AGAIN, TOKENIZER), 1)
            translated[name] = NVIDIA.to_ours(theirs, kind) or name
        return translated

    def to_theirs(self, names: Collection[str]) -> dict[str, tuple[str, ...]]:
        if form_of(names) == "folded":
            return {}
        translated = {}
        for name in names:
            if theirs := NVIDIA.to_theirs(name):
                theirs = _renumbered(theirs, -1)
                again = (theirs.replace(TOKENIZER, TOKENIZER_AGAIN),) if TOKENIZER in theirs else ()
                translated[name] = (theirs, *again)
        return translated


KEY_MAPS: dict[str, KeyMap] = {"nvidia": NvidiaNames()}


def _renumbered(name: str, by: int) -> str:
    """`name` with the number of its stage changed, if it is a downsampling's."""
    return re.sub(r"^levels\.(\d{1,9})(?=\.downsample\.)", lambda match: f"levels.{int(match[1]) + by}", name)
