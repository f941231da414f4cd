"""Fold, convert, run what was written, compare, and only then keep it."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn

from hybridvit.card import ModelCard
from hybridvit.checkpoints.metadata import digest
from hybridvit.errors import ExportError, UsageError
from hybridvit.export.bundle import card_metadata, card_of
from hybridvit.export.exporter import Exporter, Quantisation, WeightCheck
from hybridvit.export.files import replacing_with
from hybridvit.export.graph import DeployedModel
from hybridvit.export.options import Batch, resolve
from hybridvit.export.original import Original
from hybridvit.export.overflow import check_fits_half
from hybridvit.export.parity import Parity, compare
from hybridvit.export.quantise.accuracy import Accuracy
from hybridvit.export.quantise.plan import QuantisationPlan
from hybridvit.export.quantise.search import quantise
from hybridvit.export.runners import ExportedRunner
from hybridvit.export.seal import KEY, OPEN
from hybridvit.export.sizes import sizes_to_compare
from hybridvit.export.spec import GraphSpec, Precision, Returns
from hybridvit.export.targets import exporter_for
from hybridvit.folding.fold import fold, unwrapped
from hybridvit.folding.report import FoldReport, fold_report
from hybridvit.machine.facts import package_versions
from hybridvit.models.backbone import Backbone
from hybridvit.models.hat.fixed_size import depends_on_size

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
    accuracy: Accuracy | None = None  # of int8


def export(
    model: nn.Module,
    path: str | Path,
    *,
    to: str = "onnx",
    precision: Precision = "fp32",
    batch: Batch = None,
    image_size: tuple[int, int] | None = None,
    image_sizes: Sequence[tuple[int, int]] = (),
    dynamic_size: bool | tuple[int, int] = False,
    uint8: bool = False,
    returns: Returns = "logits",
    top_k: int | None = None,
    images: np.ndarray | None = None,
    limit: float | None = None,
    quantisation: QuantisationPlan | None = None,
) -> ExportReport:
    """Write `model` (eval) to `path` for the runtime `to`, folded.

    The written file is run by its own runtime on random batches of 1, 2 and 5, on drawn pictures and on `images`, and
    compared with the model as it was given, in fp32; it is kept only if no output differs by more than
    `limit` of the largest (by default 1e-5 for fp32, 5e-3 for fp16, 5e-2 for bf16; int8 is judged by its accuracy). For
    a target that does not run on this machine another reading of the file answers, and its weights are compared.

    Args:
        model: fp32, with a card.
        path: ends in the suffix of the target.
        to: a key of `EXPORTERS`.
        precision: of the numbers inside; inputs and outputs are the same with each.
        batch: images per call, or "dynamic"; by default what suits the target.
        image_size: (height, width) in pixels, by default the card's; positions that depend on it become constants.
        image_sizes: several sizes in one file, where the target can do that.
        dynamic_size: any height and width from a smallest to a largest side: those given, or with True the widest range
            that is proven, up to 2048 pixels from 32, or for a FasterViT from where the carriers' map always has more
            than one window (113 for windows of 7), since below that the model computes something else. `image_size` is
            then only what the card says to preprocess to.
        uint8: take pixels as they are decoded, uint8 (batch, height, width, channels); the normalisation is inside.
        returns: logits, the pooled features (batch, num_features), or the pyramid of feature maps.
        top_k: give the probabilities and indices of so many classes instead of all logits.
        images: (n, c, h, w) to compare on, preprocessed as the card says.
        quantisation: for int8, what to calibrate and to measure on, and what it may cost.

    Raises UsageError (target, path, options, missing package), FoldError, or ExportError; then nothing is left at
    `path` that was not there before.
    """
    exporter, path, model = exporter_for(to), Path(path), unwrapped(model)
    if any(parameter.dtype != torch.float32 for parameter in model.parameters()):
        raise UsageError("The model's weights are not float32, from which all are made. Call model.float() first.")
    exporter.require(exporter.writer_packages)
    if path.suffix != exporter.suffix:
        raise UsageError(
            f"{path} should end in '{exporter.suffix}', as files of the target '{to}' do: its suffix decides how it "
            f"is opened again. Use {path.with_suffix(exporter.suffix)}."
        )
    card = card_of(model)
    model = cast(Backbone, model)
    spec = resolve(
        model,
        card,
        exporter,
        precision=precision,
        batch=batch,
        image_size=image_size,
        image_sizes=image_sizes,
        dynamic_size=dynamic_size,
        uint8=uint8,
        returns=returns,
        top_k=top_k,
    )
    if images is not None and images.shape[1:] != (spec.channels, *spec.image_size):
        raise UsageError(
            f"The images to compare with have shape {images.shape}, but this export takes (n, {spec.channels}, "
            f"{spec.image_size[0]}, {spec.image_size[1]}). Preprocess them with model.card.preprocessing."
        )
    _check_quantisation(precision, quantisation)
    fixes_size = spec.range_px is None and not spec.image_sizes and depends_on_size(model)
    folded = fold(model, image_size=spec.image_size if fixes_size else None)
    original = Original(model, spec)
    original(np.zeros((1, spec.channels, *spec.image_size)))  # refuses a size in its own words, before a converter does
    _log.info("Folded %s before the export.", card.architecture)
    deployed = DeployedModel(_rewritten(folded, exporter), spec)
    if precision == "fp16":
        check_fits_half(deployed, original.examples(images))
    card = _exported_card(deployed, card, spec, is_fixed=fixes_size or card.fixed_size is not None)
    weights = model.state_dict()
    metadata = (
        card_metadata(card)
        | spec.metadata()
        | {
            "hybridvit.weights_sha256": digest({name: value.cpu().contiguous() for name, value in weights.items()}),
            "hybridvit.versions": json.dumps(package_versions()),
            KEY: OPEN,
        }
    )
    sizes = spec.sizes if spec.range_px is None else sizes_to_compare(spec.range_px, spec.image_size)
    accuracy: Accuracy | None = None
    with replacing_with(path, exporter.companions, is_folder=exporter.is_folder) as temporary:

        def write(with_int8: Quantisation | None = None) -> None:
            exporter.convert(deployed, spec, temporary, quantisation=with_int8)
            exporter.annotate(temporary, metadata)
            exporter.seal(temporary)

        def open_int8(with_int8: Quantisation) -> ExportedRunner:
            write(with_int8)
            return exporter.load_to_prove(temporary)

        if quantisation is None:
            write()
        else:
            accuracy = quantise(deployed, original, card.preprocessing, quantisation, open_int8)
            metadata["hybridvit.accuracy"] = json.dumps(accuracy.to_dict())
        checked = exporter.check_weights(deployed, temporary)
        parity = compare(
            exporter.load_to_prove(temporary),
            original,
            image_sizes=sizes,
            images=None if images is None else original.given(images),
            limit=exporter.limits.get(precision) if limit is None else limit,
        )
        if not parity.passed:
            raise ExportError(_too_far(parity, exporter, spec, card))
        metadata["hybridvit.parity"] = json.dumps(parity.to_dict())
        exporter.annotate(temporary, metadata)
        exporter.seal(temporary)
        exporter.load_to_prove(temporary)  # the file as it will stay opens
    noise = torch.randn(2, spec.channels, *spec.image_size, generator=torch.Generator().manual_seed(0))
    return ExportReport(
        path=path,
        target=to,
        architecture=card.architecture,
        spec=spec,
        size_bytes=sum(_size(file) for file in (path, *exporter.companions(path))),
        parity=parity,
        weights=checked,
        folding=fold_report(model, folded, noise.to(next(model.parameters()).device)),
        metadata=metadata,
        accuracy=accuracy,
    )


def _rewritten(folded: nn.Module, exporter: Exporter) -> Backbone:
    for rewrite in exporter.rewrites():
        folded = rewrite(folded)
    return cast(Backbone, folded)


def _check_quantisation(precision: Precision, plan: QuantisationPlan | None) -> None:
    if precision == "int8" and plan is None:
        raise UsageError(
            "int8 is set, but no images to calibrate on: integers need the range of every value inside, and what they "
            "cost has to be measured. Give --calibration with a folder of class folders (quantisation= in Python)."
        )
    if precision != "int8" and plan is not None:
        raise UsageError(
            f"Images to calibrate on are given, but the precision is {precision}, which needs none. Use --precision "
            "int8, or leave them out."
        )


def _too_far(parity: Parity, exporter: Exporter, spec: GraphSpec, card: ModelCard) -> str:
    limit = "any finite one" if parity.limit is None else f"{parity.limit:.0e}"
    return (
        f"The {exporter.target} file of {card.architecture} in {spec.precision} differs from PyTorch by "
        f"{parity.max_error:.1e} of the largest output; the limit is {limit}. It was not kept. Another "
        f"version of {' or '.join(exporter.writer_packages)} may convert it rightly; `hybridvit fold` tells whether "
        "folding alone is exact for these weights."
    )


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())


def _exported_card(deployed: DeployedModel, card: ModelCard, spec: GraphSpec, *, is_fixed: bool) -> ModelCard:
    """The card of the file: with uint8 pixels its mean and deviation leave levels from 0 to 255 as they are."""
    preprocessing = replace(deployed.backbone.card.preprocessing, image_size=spec.image_size)
    fixed_size = spec.image_size if is_fixed else None
    return replace(card, form="folded", preprocessing=preprocessing, fixed_size=fixed_size)
