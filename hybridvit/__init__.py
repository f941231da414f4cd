"""Fast hybrid vision transformers: train, fold, deploy, measure.

The names below are loaded when first used, so that `import hybridvit` costs nothing. When timm is imported, before
or after, the models join its registry as `hybridvit_<name>`.
"""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

import wrapt

if TYPE_CHECKING:
    from hybridvit.api import bench, dry_run, evaluate, export, predict, train
    from hybridvit.checkpoints import save_checkpoint
    from hybridvit.create import create_model
    from hybridvit.export.options import ExportOptions
    from hybridvit.folding.fold import fold
    from hybridvit.folding.report import fold_report
    from hybridvit.loading import load
    from hybridvit.measure.options import BenchOptions
    from hybridvit.models.raw_pixels import fold_preprocessing
    from hybridvit.models.registry import list_models
    from hybridvit.predictor import Predictor
    from hybridvit.publish import push

__version__ = "0.2.0"

_HOMES = {
    "BenchOptions": "hybridvit.measure.options",
    "ExportOptions": "hybridvit.export.options",
    "Predictor": "hybridvit.predictor",
    "bench": "hybridvit.api",
    "create_model": "hybridvit.create",
    "dry_run": "hybridvit.api",
    "fold": "hybridvit.folding.fold",
    "fold_preprocessing": "hybridvit.models.raw_pixels",
    "fold_report": "hybridvit.folding.report",
    "list_models": "hybridvit.models.registry",
    "load": "hybridvit.loading",
    "predict": "hybridvit.api",
    "push": "hybridvit.publish",
    "save_checkpoint": "hybridvit.checkpoints",
    "train": "hybridvit.api",
}
_PACKAGES = ("evaluate", "export")  # that can be called as the functions of these names
__all__ = [
    "BenchOptions",
    "ExportOptions",
    "Predictor",
    "bench",
    "create_model",
    "dry_run",
    "evaluate",
    "export",
    "fold",
    "fold_preprocessing",
    "fold_report",
    "list_models",
    "load",
    "predict",
    "push",
    "save_checkpoint",
    "train",
]


def __getattr__(name: str) -> object:
    if name in _PACKAGES:
        return import_module(f"hybridvit.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'hybridvit' has no attribute '{name}'")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


@wrapt.when_imported("timm")
def _register_with_timm(timm: ModuleType) -> None:
    import_module("hybridvit.timm_models")
