"""The folder that is a model's repository: weights, config.json, README.md, recipe, metrics, curves."""

import dataclasses
import json
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

import hybridvit
from hybridvit.atomic import write_text
from hybridvit.checkpoints import load
from hybridvit.checkpoints.metadata import to_metadata
from hybridvit.difference import relative_error
from hybridvit.errors import CheckpointError
from hybridvit.models.whole import WholeModel
from hybridvit.publish.finished import FinishedRun
from hybridvit.publish.licence import licence_of
from hybridvit.publish.readme import readme
from hybridvit.publish.timm_layout import Layout, OpensIn, layout_of
from hybridvit.recipe.file import RECIPE, recipe_text
from hybridvit.report.charts import picture
from hybridvit.training.record.curves import curves_of

MANIFEST = "hybridvit.json"
"""Lists what a push wrote, and so tells a repository that a push may replace."""
LIMIT = 1e-5  # of the largest answer, by which timm's may differ
HIDDEN = ("Learning rate", "Speed")  # curves that say nothing of the model


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What was written."""

    folder: Path
    files: Sequence[str]  # inside it, with / between folders
    opens_in: OpensIn
    difference: float | None  # of timm's answer from ours, of the largest; None: timm does not open it
    licence: str
    notice: str  # what has to be known of the licence; empty: nothing


def write_contents(run: FinishedRun, repository: str, folder: Path, *, licence: str = "") -> Contents:
    """Write the repository of a run into an empty folder, and open it as others will.

    Raises UsageError for a licence that is not to be chosen, CheckpointError if timm answers something else.
    """
    licence = licence_of(run.model.card, licence)
    model = run.model
    model.card = dataclasses.replace(model.card, licence=licence)
    layout = layout_of(model)
    pictures = _pictures(run)
    texts = {
        "README.md": readme(
            run, layout, repository, licence=licence, pictures={name: each[0] for name, each in pictures.items()}
        ),
        "config.json": json.dumps(layout.config, indent=2) + "\n",
        "metrics.json": json.dumps(_metrics(run), indent=1) + "\n",
        RECIPE: recipe_text(run.recipe),
        **{name: each[1] for name, each in pictures.items()},
    }
    files = ("model.safetensors", *texts, MANIFEST)
    card = dataclasses.asdict(model.card)
    texts[MANIFEST] = json.dumps({"hybridvit": hybridvit.__version__, "files": files, "card": card}, indent=1) + "\n"
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in layout.tensors.items()}
    content = _with_format(save(tensors, to_metadata(model.card, tensors)))
    (folder / "model.safetensors").write_bytes(content)
    for name, text in texts.items():
        (folder / name).parent.mkdir(exist_ok=True)
        write_text(folder / name, text)
    difference = _proven(folder, model, layout)
    return Contents(
        folder=folder,
        files=files,
        opens_in=layout.opens_in,
        difference=difference,
        licence=licence,
        notice=model.card.licence_notice,
    )


def _pictures(run: FinishedRun) -> dict[str, tuple[str, str]]:
    """Title and content of each picture, by its file's name."""
    curves = [curve for curve in curves_of(run.history, run.task.quantities) if curve.title not in HIDDEN]
    drawn = {f"curves/{_slug(curve.title)}.svg": (curve.title, picture(curve)) for curve in curves}
    return {name: each for name, each in drawn.items() if each[1]}


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _metrics(run: FinishedRun) -> dict[str, Any]:
    """result.json without the places of files."""
    places = ("folder", "model", "last", "recipe", "metrics", "report")
    told = {key: value for key, value in run.result.items() if key not in places}
    return {"measured": {quantity.name: value for quantity, value in run.measured}, **told}


def _with_format(content: bytes) -> bytes:
    """Safetensors that say they are PyTorch's, as older transformers ask; equal models give equal bytes.

    The library writes several entries of metadata in random order, so the second is put into its header here.
    """
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = {"format": "pt", **header["__metadata__"]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def _proven(folder: Path, model: WholeModel, layout: Layout) -> float | None:
    """How far timm's answer from the folder is from the model's, of the largest; None where timm does not open it."""
    file = folder / "model.safetensors"
    again = load(file).state_dict()
    own = model.state_dict()
    if again.keys() != own.keys() or any(not torch.equal(again[name], own[name].cpu()) for name in own):
        raise CheckpointError("The written weights are not the run's. This is a fault of hybridvit: please report it.")
    if layout.opens_in == "hybridvit":
        return None
    import timm

    size = (model.in_chans, *model.card.preprocessing.image_size)
    images = torch.randn(2, *size, generator=torch.Generator().manual_seed(0))
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.no_grad():
        difference = relative_error(theirs(images).numpy(), model.eval()(images).numpy())
    if not difference <= LIMIT:
        raise CheckpointError(
            f"timm answers otherwise than hybridvit (by {difference:.1e} of the largest output, limit {LIMIT:.0e}), so "
            "nothing was published. This is a fault of hybridvit: please report it."
        )
    return difference
