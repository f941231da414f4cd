"""Fold, convert, run what was written, compare, and only then keep it."""

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from hybridvit.atomic import replacing
from hybridvit.card import ModelCard
from hybridvit.checkpoints.metadata import digest
from hybridvit.errors import ExportError, UsageError
from hybridvit.export.bundle import card_metadata, card_of
from hybridvit.export.onnx import INPUT
from hybridvit.export.parity import LIMIT_FP32, Parity, compare
from hybridvit.export.runners import TorchRunner
from hybridvit.export.targets import exporter_for
from hybridvit.folding.fold import fold, unwrapped
from hybridvit.folding.foldable import branch_by_branch
from hybridvit.folding.report import FoldReport, fold_report
from hybridvit.measure.machine import package_versions

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What was written, and the proof that it answers as the model does."""

    path: Path
    target: str
    size_bytes: int
    parity: Parity
    folding: FoldReport
    metadata: dict[str, str]


def export(
    model: nn.Module,
    path: str | Path,
    *,
    to: str = "onnx",
    images: np.ndarray | None = None,
    image_size: tuple[int, int] | None = None,
    limit: float = LIMIT_FP32,
) -> ExportReport:
    """Write `model` (eval) to `path` for the runtime `to`, folded, with a dynamic batch and fixed height and width.

    The written file is run by its own runtime on random batches of 1, 2 and 5 and on `images` (n, c, h, w;
    preprocessed), and compared with the model as it was given, branch by branch; it is kept only if no logit differs
    by more than `limit` of the largest. `image_size` (height, width in pixels) defaults to that of the card.
    Raises UsageError (target, path, missing package), FoldError, or ExportError; then nothing is left at `path`
    that was not there before.
    """
    exporter, path, model = exporter_for(to), Path(path), unwrapped(model)
    if any(parameter.dtype != torch.float32 for parameter in model.parameters()):
        raise UsageError("The model's weights are not float32, the precision exported here. Call model.float() first.")
    exporter.require(exporter.writer_packages)
    if path.suffix != exporter.suffix:
        raise UsageError(
            f"{path} should end in '{exporter.suffix}', as files of the target '{to}' do: its suffix decides how it "
            f"is opened again. Use {path.with_suffix(exporter.suffix)}."
        )
    card = _exported_card(card_of(model), image_size)
    image_shape = (card.options.get("in_chans", 3), *card.preprocessing.image_size)
    if images is not None and images.shape[1:] != image_shape:
        raise UsageError(
            f"The images to compare with have shape {images.shape}, but this export takes (n, "
            f"{', '.join(str(side) for side in image_shape)}). Preprocess them with model.card.preprocessing."
        )
    folded = fold(model)
    original = TorchRunner(model, card)
    original(np.zeros((1, *image_shape), np.float32))  # refuses a size in its own words, before a converter does
    _log.info("Folded %s before the export.", card.architecture)
    weights = model.state_dict()
    metadata = card_metadata(card) | {
        "hybridvit.input": json.dumps(
            {"name": INPUT, "axes": "batch channels height width", "shape": ["batch", *image_shape], "type": "float32"}
        ),
        "hybridvit.weights_sha256": digest({name: value.cpu().contiguous() for name, value in weights.items()}),
        "hybridvit.versions": json.dumps(package_versions()),
    }
    with replacing(path) as temporary:
        exporter.convert(folded, torch.zeros(2, *image_shape), temporary)
        exporter.annotate(temporary, metadata)
        with branch_by_branch(model):
            parity = compare(
                exporter.load_runner(temporary),
                original,
                image_shape=image_shape,
                images=images,
                limit=limit,
            )
        if not parity.passed:
            raise ExportError(
                f"The {to} file of {card.architecture} differs from PyTorch by {parity.max_error:.1e} of the largest "
                f"logit; the limit is {limit:.0e}. It was not kept. Another version of "
                f"{' or '.join(exporter.writer_packages)} may convert it rightly; `hybridvit fold` tells whether "
                "folding alone is exact for these weights."
            )
        metadata["hybridvit.parity"] = json.dumps(parity.to_dict())
        exporter.annotate(temporary, metadata)
        exporter.load_runner(temporary)  # the file as it will stay opens
        size_bytes = temporary.stat().st_size
    return ExportReport(
        path=path,
        target=to,
        size_bytes=size_bytes,
        parity=parity,
        folding=fold_report(model, folded),
        metadata=metadata,
    )


def _exported_card(card: ModelCard, image_size: tuple[int, int] | None) -> ModelCard:
    preprocessing = card.preprocessing
    if image_size is not None:
        preprocessing = replace(preprocessing, image_size=image_size)
    return replace(card, form="folded", preprocessing=preprocessing)
