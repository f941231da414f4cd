"""Fold, convert, run what was written, compare, and only then keep it."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn

from hybridvit.card import ModelCard
from hybridvit.digest import digest
from hybridvit.errors import ExportError, UsageError
from hybridvit.export.bundle import card_of
from hybridvit.export.draft import Draft, drafted
from hybridvit.export.embeddings import EMBEDDINGS
from hybridvit.export.exporter import Exporter, Quantisation, WeightCheck
from hybridvit.export.options import DEFAULTS, ExportOptions
from hybridvit.export.original import Original
from hybridvit.export.overflow import check_fits_half
from hybridvit.export.parity import BATCH_SIZES, Parity, compare, limit_of
from hybridvit.export.quantise.plan import QuantisationPlan
from hybridvit.export.quantise.quality import Quality
from hybridvit.export.quantise.search import quantise
from hybridvit.export.resolve import resolve
from hybridvit.export.runners import ExportedRunner
from hybridvit.export.sizes import sizes_to_compare
from hybridvit.export.spec import GraphSpec
from hybridvit.export.targets import exporter_for
from hybridvit.folding.fold import fold, unwrapped
from hybridvit.folding.report import FoldReport, fold_report
from hybridvit.models.hat.fixed_size import depends_on_size
from hybridvit.models.whole import WholeModel
from hybridvit.task import find_task

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What was written, and the proof that it answers as the model does."""

    path: Path
    target: str
    architecture: str
    spec: GraphSpec
    size_bytes: int  # of all its files
    parity: Parity
    weights: WeightCheck | None  # compared as well, where files of the target do not run here
    folding: FoldReport
    metadata: dict[str, str]
    quality: Quality | None = None  # of int8
    notice: str = ""  # what has to be known of the file, such as whose data is in it


def export(
    model: nn.Module,
    path: str | Path,
    *,
    to: str = "onnx",
    options: ExportOptions = DEFAULTS,
    images: np.ndarray | Sequence[np.ndarray] = (),
    quantisation: QuantisationPlan | None = None,
) -> ExportReport:
    """Write `model` (eval) to `path` for the runtime `to`, folded.

    The written file is run by its own runtime on random batches of 1, 2 and 5, on drawn pictures and on `images`, and
    compared with the model as it was given, in fp32; it is kept only if no output differs by more than
    `options.limit` of the largest (by default 1e-5 for fp32, 5e-3 for fp16, 5e-2 for bf16; int8 is judged by its
    accuracy). For a target that does not run on this machine another reading of the file answers, and its weights are
    compared.

    Args:
        model: fp32, with a card.
        path: ends in the suffix of the target.
        to: a key of `EXPORTERS`.
        options: precision, batch, sizes, and what the ends of the graph are.
        images: (n, c, h, w) to compare on, or (c, h, w) each, preprocessed as the card says.
        quantisation: for int8, what to calibrate and to measure on, and what it may cost.

    Raises UsageError (target, path, options, missing package), FoldError, or ExportError; then nothing is left at
    `path` that was not there before.
    """
    exporter, path, model = exporter_for(to), Path(path), cast(WholeModel, unwrapped(model))
    _check_ends(model, exporter, path)
    spec = resolve(model, card_of(model), exporter, options)
    _check_images(spec, images, quantisation)
    folded = fold(model, image_size=_fixed_size(model, spec))
    original = Original(model, spec)
    own = find_task(model.card.task).notice(model.card, spec.answers) if spec.gives_answers else ""
    notice = " ".join(filter(None, (own, model.card.licence_notice)))
    original(np.zeros((1, spec.channels, *spec.image_size)))  # refuses a size in its own words, before a converter does
    _log.info("Folded %s before the export.", model.card.architecture)
    with drafted(folded, spec, exporter, path) as draft:
        if spec.precision == "fp16":
            check_fits_half(draft.model, original.examples(list(images)))
        draft.metadata.update(_about(model, draft.card, spec, notice))
        quality = _written(draft, original, quantisation)
        checked = exporter.check_weights(draft.model, draft.path)
        parity = _compared(draft, original, list(images), options.limit)
        draft.note({"hybridvit.parity": json.dumps(parity.to_dict())})
        draft.opened()  # the file as it will stay
    return ExportReport(
        path=path,
        target=to,
        architecture=draft.card.architecture,
        spec=spec,
        size_bytes=sum(_size(file) for file in (path, *exporter.companions(path))),
        parity=parity,
        weights=checked,
        folding=_folding(model, folded, spec),
        metadata=draft.metadata,
        quality=quality,
        notice=notice,
    )


def _about(model: WholeModel, card: ModelCard, spec: GraphSpec, notice: str) -> dict[str, str]:
    """What the metadata say of the weights; `card` is that of the file."""
    weights = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
    about = {"hybridvit.weights_sha256": digest(weights)}
    if spec.returns == EMBEDDINGS:
        about["hybridvit.embedding_space"] = card.embedding_space
    return about | ({"hybridvit.notice": notice} if notice else {})


def _fixed_size(model: WholeModel, spec: GraphSpec) -> tuple[int, int] | None:
    """The only size of the file, if positions depend on it and become constants."""
    is_only = spec.range_px is None and not spec.image_sizes
    return spec.image_size if is_only and depends_on_size(model) else None


def _folding(model: nn.Module, folded: nn.Module, spec: GraphSpec) -> FoldReport:
    noise = torch.randn(2, spec.channels, *spec.image_size, generator=torch.Generator().manual_seed(0))
    return fold_report(model, folded, noise.to(next(model.parameters()).device))


def _check_ends(model: nn.Module, exporter: Exporter, path: Path) -> None:
    if any(parameter.dtype != torch.float32 for parameter in model.parameters()):
        raise UsageError("The model's weights are not float32, from which all are made. Call model.float() first.")
    exporter.import_packages(exporter.writer_packages)
    if path.suffix != exporter.suffix:
        raise UsageError(
            f"{path} should end in '{exporter.suffix}', as files of the target '{exporter.target}' do: its suffix "
            f"decides how it is opened again. Use {path.with_suffix(exporter.suffix)}."
        )


def _check_images(spec: GraphSpec, images: np.ndarray | Sequence[np.ndarray], plan: QuantisationPlan | None) -> None:
    for image in images:
        channels, *size = image.shape
        if channels != spec.channels or not spec.takes_size((size[0], size[1])):
            raise UsageError(
                f"An image to compare with has shape {image.shape}, but this export takes {spec.takes}. Preprocess it "
                "with model.card.preprocessing."
            )
    if spec.precision == "int8" and plan is None:
        raise UsageError(
            "int8 is set, but no images to calibrate on: integers need the range of every value inside, and what they "
            "cost has to be measured. Give --calibration with a folder of class folders (quantisation= in Python)."
        )
    if spec.precision != "int8" and plan is not None:
        raise UsageError(
            f"Images to calibrate on are given, but the precision is {spec.precision}, which needs none. Use "
            "--precision int8, or leave them out."
        )


def _written(draft: Draft, original: Original, plan: QuantisationPlan | None) -> Quality | None:
    """Write the file; in integers as accurately as planned."""
    if plan is None:
        draft.write()
        return None

    def attempt(quantisation: Quantisation) -> ExportedRunner:
        draft.write(quantisation)
        return draft.opened()

    floating = draft.exporter.floating_layers(draft.model)
    quality = quantise(draft.model, original, draft.card, plan, attempt, floating=floating)
    draft.metadata["hybridvit.accuracy"] = json.dumps(quality.to_dict())
    return quality


def _compared(draft: Draft, original: Original, images: Sequence[np.ndarray], limit: float | None) -> Parity:
    """What the file answers against what the model does. Raises ExportError over the limit."""
    spec, exporter, task = original.spec, draft.exporter, find_task(draft.card.task)
    parity = compare(
        draft.opened(),
        original,
        image_sizes=spec.sizes if spec.range_px is None else sizes_to_compare(spec.range_px, spec.image_size),
        images=[original.given(image) for image in images],
        batch_sizes=BATCH_SIZES if spec.batch is None else BATCH_SIZES[:2],  # one that is fixed is run in parts
        limit=limit_of(exporter, task, spec) if limit is None else limit,
    )
    if parity.passed:
        return parity
    allowed = "any finite one" if parity.limit is None else f"{parity.limit:.0e}"
    raise ExportError(
        f"The {exporter.target} file of {draft.card.architecture} in {spec.precision} differs from PyTorch by "
        f"{parity.found}; the limit is {allowed}. It was not kept. Another version of "
        f"{' or '.join(exporter.writer_packages)} may convert it rightly; `hybridvit fold` tells whether folding alone "
        "is exact for these weights."
    )


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())
