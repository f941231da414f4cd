"""Start from timm's Swin weights: what both have is copied, what is new disturbs little.

The new parts are the carriers with their blocks, and the embeddings of places; they stay as initialised. Propagation
then adds 1e-5 of the carriers. But windows no longer shift and attend to their carriers too, so accuracy comes from
training on, not from the start. `create_model("swin_tiny_hat", pretrained="swin_tiny.safetensors")` comes here.
"""

import dataclasses
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hybridvit.checkpoints import load_weights, read_tensors
from hybridvit.checkpoints.checkpoint import FilePath
from hybridvit.checkpoints.keymaps.table import Row, Table
from hybridvit.checkpoints.matching import num_classes_of
from hybridvit.data.imagenet import NUM_CLASSES, class_names
from hybridvit.models.backbone import Backbone
from hybridvit.models.swin_hat.model import SwinHAT

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


@dataclass(frozen=True, kw_only=True)
class StartReport:
    """What `start_from_timm` did."""

    source: str
    num_tensors: int  # copied into the model
    new: tuple[str, ...]  # left as initialised, for timm's Swin has nothing like them
    ones: tuple[str, ...]  # layer scales set to one: timm's Swin has none
    reset: tuple[str, ...]  # of the classifier, left as initialised


def is_timm_swin(names: Collection[str]) -> bool:
    """Whether tensors with these names are timm's Swin."""
    return any(name.endswith(BIAS_TABLE) for name in names)


def start_from_timm(
    model: SwinHAT, source: FilePath | Mapping[str, Tensor], *, reset_head: bool = False, adapt_input: bool = False
) -> StartReport:
    """Copy the weights of timm's Swin of the same depths, widths and window into a model. Strict in all they share.

    Args:
        model: in training form; unchanged unless everything fits.
        source: a file, or tensors by name, such as `timm.create_model(...).state_dict()`.
        reset_head: leave the classifier as initialised, whatever the file has there.
        adapt_input: fit the first convolution to the model's input channels.

    Raises:
        CheckpointError: for anything wrong with the file and for one that does not fit; see `load_weights`.
    """
    path, theirs = (Path("The tensors"), source) if isinstance(source, Mapping) else _read(source)
    found = {}
    for name, tensor in theirs.items():
        found[TIMM.to_ours(name) or name] = _table(tensor) if name.endswith(BIAS_TABLE) else tensor
    expected = model.state_dict()
    new = {name: tensor for name, tensor in expected.items() if name not in found and NEW.search(name)}
    ones = {
        name: torch.ones_like(tensor)
        for name, tensor in expected.items()
        if name not in found and SCALE_OF_TOKENS.search(name)
    }
    report = load_weights(model, found | new | ones, reset_head=reset_head, adapt_input=adapt_input)
    return StartReport(
        source=str(path),
        num_tensors=report.num_tensors - len(new) - len(ones),
        new=tuple(new),
        ones=tuple(ones),
        reset=report.reset,
    )


def started_from_timm(model: Backbone, path: Path) -> Backbone:
    """`model` with the weights in a file of timm's Swin, and a card that says so; another classifier stays new."""
    assert isinstance(model, SwinHAT)
    theirs = read_tensors(path).tensors
    same_classes = 0 < num_classes_of(theirs) == model.num_classes
    start_from_timm(model, theirs, reset_head=not same_classes, adapt_input=True)
    names = class_names() if same_classes and model.num_classes == NUM_CLASSES else ()
    model.card = dataclasses.replace(model.card, source=f"{path} (Swin; its carriers are new)", class_names=names)
    return model


def _read(source: FilePath) -> tuple[Path, Mapping[str, Tensor]]:
    file = read_tensors(source)
    return file.path, file.tensors


def _table(theirs: Tensor) -> Tensor:
    """(offsets, heads), query minus key and row-major, as (heads, dy, dx); a table that is no square stays as it is."""
    side = math.isqrt(theirs.shape[0])
    return theirs.T.unflatten(1, (side, side)) if side**2 == theirs.shape[0] else theirs
