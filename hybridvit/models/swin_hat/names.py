"""Names of Swin with hierarchical attention, ours and those of timm's Swin, from which a training can start.

What both have is copied. The new parts are the carriers with their blocks, and the embeddings of places; they stay as
initialised. Propagation then adds 1e-5 of the carriers. But windows no longer shift and attend to their carriers too,
so accuracy comes from training on, not from the start.
"""

import math
import re
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from hybridvit.card import Form
from hybridvit.models.key_map import KeyMap, Row, Table

BLOCK, THEIRS = "stages.#.attention.blocks.#", "layers.#.blocks.#"
BIAS_TABLE = ".relative_position_bias_table"
ROWS = (
    Row("stem.proj", "patch_embed.proj"),
    Row("stem.norm", "patch_embed.norm"),
    Row("stages.#.downsample.merging.norm", "layers.#.downsample.norm"),
    Row("stages.#.downsample.merging.reduction", "layers.#.downsample.reduction"),
    Row(f"{BLOCK}.attention.norm", f"{THEIRS}.norm1"),
    Row(f"{BLOCK}.attention.to_qkv", f"{THEIRS}.attn.qkv"),
    Row(f"{BLOCK}.attention.bias.weight", f"{THEIRS}.attn{BIAS_TABLE}"),
    Row(f"{BLOCK}.attention.to_out", f"{THEIRS}.attn.proj"),
    Row(f"{BLOCK}.mlp.norm", f"{THEIRS}.norm2"),
    Row(f"{BLOCK}.mlp.expand", f"{THEIRS}.mlp.fc1"),
    Row(f"{BLOCK}.mlp.project", f"{THEIRS}.mlp.fc2"),
    Row("head.norm", "norm"),
    Row("head.fc", "head.fc"),
)
TIMM = Table(ROWS)
NEW = re.compile(r"\.attention\.(carriers|blocks\.\d+\.(position|carrier_position|carrier_attention|carrier_mlp))\.")
SCALE_OF_TOKENS = re.compile(r"\.blocks\.\d+\.(attention|mlp)\.layer_scale$")


def is_ours(names: Collection[str]) -> bool:
    """Whether these are our names of a Swin with hierarchical attention."""
    return any(re.match(r"stages\.\d+\.attention\.", name) for name in names)


def form_of(names: Collection[str]) -> Form:
    """training or folded, from our names; nobody released another form."""
    return "training" if any(name.endswith(".mlp.norm.weight") for name in names) else "folded"


class TimmSwinNames(KeyMap):
    """Names of timm's Swin of the same depths, widths and window."""

    title, forms = "timm's Swin", "no form"
    start = "Swin; its carriers are new"

    def recognises(self, names: Collection[str]) -> bool:
        return any(name.startswith("layers.") and name.endswith(BIAS_TABLE) for name in names)

    def to_ours(self, names: Collection[str]) -> dict[str, str]:
        return {name: TIMM.to_ours(name) or name for name in names}

    def to_theirs(self, names: Collection[str]) -> dict[str, tuple[str, ...]]:
        return {}

    def value(self, name: str, tensor: Tensor) -> Tensor:
        return _table(tensor) if name.endswith(BIAS_TABLE) else tensor

    def missing(self, found: Collection[str], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The new parts as they are, and layer scales of one, for timm's Swin has none."""
        absent = {name: tensor for name, tensor in expected.items() if name not in found}
        new = {name: tensor for name, tensor in absent.items() if NEW.search(name)}
        ones = {name: torch.ones_like(tensor) for name, tensor in absent.items() if SCALE_OF_TOKENS.search(name)}
        return new | ones


KEY_MAPS: dict[str, KeyMap] = {"timm_swin": TimmSwinNames()}


def _table(theirs: Tensor) -> Tensor:
    """(offsets, heads), query minus key and row-major, as (heads, dy, dx); a table that is no square stays as it is."""
    side = math.isqrt(theirs.shape[0])
    return theirs.T.unflatten(1, (side, side)) if side**2 == theirs.shape[0] else theirs
