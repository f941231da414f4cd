"""Fold, convert, run what was written, compare, and only then keep it."""

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from hybridvit.card import ModelCard
from hybridvit.checkpoints.metadata import digest
from hybridvit.errors import ExportError, UsageError
from hybridvit.export.bundle import card_metadata, card_of, input_metadata
from hybridvit.export.exporter import Exporter
from hybridvit.export.files import replacing_with
from hybridvit.export.parity import LIMIT_FP32, Parity, compare
from hybridvit.export.runners import TorchRunner
from hybridvit.export.sizes import check_range, example_size, sizes_to_compare
from hybridvit.export.targets import exporter_for
from hybridvit.folding.fixed_size import depends_on_size
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
    size_bytes: int  # of all its files
    range_px: tuple[int, int] | None  # smallest and largest side, if height and width are dynamic
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
    dynamic_size: bool | tuple[int, int] = False,
    limit: float = LIMIT_FP32,
) -> ExportReport:
    """Write `model` (eval) to `path` for the runtime `to`, folded, with a dynamic batch and fixed or dynamic sides.

    The written file is run by its own runtime on random batches of 1, 2 and 5 and on `images` (n, c, h, w;
    preprocessed), and compared with the model as it was given, branch by branch; it is kept only if no logit differs
    by more than `limit` of the largest. `image_size` (height, width in pixels) defaults to that of the card; positions
    that depend on it become constants.

    With `dynamic_size` the file takes any height and width from a smallest to a largest side: those given, or with True
    the widest range that is proven, up to 2048 pixels from 32, or for a FasterViT from where the carriers' map always
    has more than one window (113 for windows of 7), since below that the model computes something else. It is compared
    at several sizes, the smallest among them; `image_size` is then only what its card says to preprocess to.

    Raises UsageError (target, path, sizes, missing package), FoldError, or ExportError; then nothing is left at `path`
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
    card = card_of(model)
    size = image_size or card.preprocessing.image_size
    range_px = check_range(model, card, dynamic_size) if dynamic_size else None
    channels = card.options.get("in_chans", 3)
    if images is not None and images.shape[1:] != (channels, *size):
        raise UsageError(
            f"The images to compare with have shape {images.shape}, but this export takes (n, {channels}, {size[0]}, "
            f"{size[1]}). Preprocess them with model.card.preprocessing."
        )
    fixes_size = range_px is None and depends_on_size(model)
    folded = fold(model, image_size=size if fixes_size else None)
    original = TorchRunner(model, card)
    original(np.zeros((1, channels, *size), np.float32))  # refuses a size in its own words, before a converter does
    _log.info("Folded %s before the export.", card.architecture)
    card = _exported_card(card, size, is_fixed=fixes_size or card.fixed_size is not None)
    weights = model.state_dict()
    metadata = (
        card_metadata(card)
        | input_metadata((channels, *size), range_px)
        | {
            "hybridvit.weights_sha256": digest({name: value.cpu().contiguous() for name, value in weights.items()}),
            "hybridvit.versions": json.dumps(package_versions()),
        }
    )
    with replacing_with(path, exporter.companions) as temporary:
        exporter.convert(
            folded,
            torch.zeros(2, channels, *(size if range_px is None else example_size(range_px))),
            temporary,
            range_px=range_px,
        )
        exporter.annotate(temporary, metadata)
        with branch_by_branch(model):
            parity = compare(
                exporter.load_runner(temporary),
                original,
                channels=channels,
                image_sizes=[size] if range_px is None else sizes_to_compare(range_px, size),
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
    noise = torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(0))
    return ExportReport(
        path=path,
        target=to,
        size_bytes=sum(file.stat().st_size for file in files_of(path, exporter)),
        range_px=range_px,
        parity=parity,
        folding=fold_report(model, folded, noise.to(next(model.parameters()).device)),
        metadata=metadata,
    )


def files_of(path: Path, exporter: Exporter) -> list[Path]:
    """The file at `path` and those that belong to it."""
    return [path, *(path.with_suffix(suffix) for suffix in exporter.companions)]


def _exported_card(card: ModelCard, size: tuple[int, int], *, is_fixed: bool) -> ModelCard:
    preprocessing = replace(card.preprocessing, image_size=size)
    return replace(card, form="folded", preprocessing=preprocessing, fixed_size=size if is_fixed else None)
