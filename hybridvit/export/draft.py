"""The half of an export that needs no proof of its own: a folded model as a file of a target, beside its place."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from pkgutil import resolve_name
from typing import cast

from torch import nn

from hybridvit.card import ModelCard, Preprocessing
from hybridvit.errors import CheckpointError, ExportError, first_line
from hybridvit.export.bundle import card_metadata
from hybridvit.export.exporter import Exporter, Quantisation
from hybridvit.export.files import replacing_with
from hybridvit.export.graph import DeployedModel
from hybridvit.export.runners import ExportedRunner
from hybridvit.export.seal import KEY, OPEN
from hybridvit.export.spec import GraphSpec
from hybridvit.machine.facts import package_versions
from hybridvit.models.pyramid import Pyramid
from hybridvit.models.whole import WholeModel

PROVING = "The file is written; its runtime runs it."  # logged, so that the parent of a process that dies knows

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Draft:
    """A file on its way; `metadata` travels with it."""

    model: DeployedModel
    exporter: Exporter
    path: Path  # a temporary one
    card: ModelCard  # of the file
    metadata: dict[str, str]

    def write(self, quantisation: Quantisation | None = None) -> None:
        """Convert, in place of what was written before."""
        self.exporter.convert(self.model, self.path, quantisation)
        self.note({})

    def note(self, entries: dict[str, str]) -> None:
        """Add metadata."""
        self.metadata.update(entries)
        self.exporter.annotate(self.path, self.metadata)
        self.exporter.seal(self.path)

    def opened(self) -> ExportedRunner:
        """What answers for the file. Raises ExportError if the runtime does not open what was just written."""
        _log.info(PROVING)
        try:
            return self.exporter.load_to_prove(self.path)
        except CheckpointError as error:
            raise ExportError(
                f"The {self.exporter.target} file of {self.card.architecture} in {self.model.spec.precision} was "
                f"written, but {self.exporter.title} does not open it ({first_line(error.__cause__ or error)}). It was "
                "not kept. Another precision, or another version of "
                f"{' or '.join(self.exporter.writer_packages)}, may do it."
            ) from error


def prepared_for(preprocessing: Preprocessing, spec: GraphSpec) -> Preprocessing:
    """How pictures become what the file takes: in one size, those that show the whole have to be padded to it."""
    preprocessing = replace(preprocessing, image_size=spec.image_size)
    if preprocessing.crop_mode == "fit" and spec.range_px is None:
        return replace(preprocessing, crop_mode="letterbox", fit_px=None)
    return preprocessing


@contextmanager
def drafted(folded: nn.Module, spec: GraphSpec, exporter: Exporter, path: Path) -> Iterator[Draft]:
    """A draft of `folded`, rewritten for the target; it takes its place at `path` if the block ends without error."""
    for name in exporter.rewrites if isinstance(folded, WholeModel | Pyramid) else ():
        folded = resolve_name(name)(folded)
    model = DeployedModel(cast(WholeModel, folded), spec)  # timm's have the methods that it calls
    card = model.backbone.card  # with uint8 pixels its mean and deviation leave levels from 0 to 255 as they are
    card = replace(card, form="folded", preprocessing=prepared_for(card.preprocessing, spec))
    metadata = card_metadata(card) | spec.metadata()
    metadata |= {"hybridvit.versions": json.dumps(package_versions()), KEY: OPEN}
    with replacing_with(path, exporter.companions, is_folder=bool(exporter.record)) as temporary:
        yield Draft(model, exporter, temporary, card, metadata)
