"""One thread and one seed for every test; weights that make each branch count."""

import dataclasses
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")

import jaxtyping
import pytest
import torch
from error_texts import recorded
from torch import nn
from trained_like import trained_like

import hybridvit
from hybridvit.models.registry import find_variant

if TYPE_CHECKING:
    from serving import Process

SHRUNK = {  # what keeps mixers, windows, layer scale and propagation, but not the size
    "fastvit": {"depths": (1, 1, 2, 1)},
    "fastervit": {
        "widths": (16, 32, 64, 128),
        "depths": (1, 1, 2, 1),
        "num_heads": (1, 2, 4, 8),
        "stem_width": 8,
        "position_hidden": 32,
        "mlp_ratio": 2,
    },
    "swin_hat": {"widths": (24, 48, 96, 192), "depths": (1, 1, 2, 1), "position_hidden": 32},
}
SMALL = {"fastvit_debug", "fastvit_mci_debug", "fastervit_debug", "swin_debug_hat"}  # as they are
LARGE = {
    "fastervit_4_21k_768",  # differs from fastervit_4_21k_512 in nothing but its larger windows
    *(
        f"fastvit_mci{size}" for size in (2, 3, 4)
    ),  # from fastvit_mci0 and fastvit_mci_debug in nothing but their widths
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take longest come first, so that no process is left alone with one."""
    items.sort(key=lambda item: item.get_closest_marker("longest") is None)


@pytest.fixture(autouse=True)
def _deterministic():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _error_texts():
    with recorded():
        yield


def every_model() -> list[object]:
    """All registered models as parameters of a test; those that `contract_model` makes equal to others are nightly."""
    first: dict[object, str] = {}
    for name in hybridvit.list_models():
        variant = find_variant(name)
        config = dataclasses.replace(variant.config, **_shrunk(name))
        first.setdefault(config, name)
    chosen = set(first.values()) - LARGE
    return [
        pytest.param(name, id=name, marks=() if name in chosen else pytest.mark.nightly)
        for name in hybridvit.list_models()
    ]


LIKE_OTHERS = {"t12", "s12", "sa24", "sa36", "mci1", "mci2", "mci4"}  # FastViTs with other numbers in the same places


def by_day(names: Iterable[str]) -> list[object]:
    """`names` of FastViTs, or of their variants, as parameters of a test; those that are like others are nightly."""
    return [
        pytest.param(name, marks=pytest.mark.nightly if name.removeprefix("fastvit_") in LIKE_OTHERS else ())
        for name in names
    ]


KINDS = ("fastvit_debug", "fastvit_mci_debug", "fastvit_sa12", "fastervit_debug", "fastervit_0", "swin_debug_hat")


def first_of_each_kind() -> list[object]:
    """All registered models as parameters of a test; those that have nothing that one of `KINDS` lacks are nightly."""
    return [pytest.param(name, marks=() if name in KINDS else pytest.mark.nightly) for name in hybridvit.list_models()]


def contract_model(name: str, **options: object) -> nn.Module:
    """A registered model, all but those of debug size in a form that keeps everything but the size."""
    return hybridvit.create_model(name, **(_shrunk(name) | options))


def _shrunk(name: str) -> dict[str, object]:
    if name in SMALL:
        return {}
    variant = find_variant(name)
    shrunk: dict[str, object] = dict(SHRUNK[variant.family])
    if len(variant.config.depths) == 5:
        shrunk |= {"depths": (1, 1, 2, 1, 1)}
    return shrunk


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference over the largest expected value."""
    return ((actual.double() - expected.double()).abs().max() / expected.double().abs().max()).item()


def sizes_px(name: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """An odd size at which all parts of a model run (carriers need a map of several windows), and a small one."""
    return ((65, 98) if find_variant(name).family == "fastvit" else (130, 161)), (32, 64)


@pytest.fixture
def unchecked():
    """Let wrong values past the annotations, which `make test` checks, to the library's own errors."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def debug_model() -> nn.Module:
    return trained_like(hybridvit.create_model("fastvit_debug", num_classes=10))


@pytest.fixture(params=["fastvit_debug", "fastervit_debug"])
def any_debug_model(request) -> nn.Module:
    """The debug size of each family; all its parts run at 64 x 64 pixels."""
    return trained_like(hybridvit.create_model(request.param, num_classes=10))


@pytest.fixture(scope="session")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small classifier, exported: m.onnx."""
    from serving import classifier

    return classifier(tmp_path_factory.mktemp("onnx") / "m.onnx")


@pytest.fixture(scope="session")
def process(onnx_file: Path) -> Iterator["Process"]:
    """`hybridvit serve` of the model m, for all tests that ask as clients do."""
    from serving import serving

    with serving(onnx_file, "--max_batch", 8) as process:
        yield process
