"""One exported model for all jobs, and pictures of which some are bad, slow or deadly."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import saved_models
from fresh import ENVIRONMENT, PROGRAMS

from hybridvit.export.pipeline import export
from jobs.photos import write_photos

OPENING = PROGRAMS / "opening"


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small exported file of five classes."""
    path = tmp_path_factory.mktemp("model") / "m.onnx"
    export(saved_models.debug_model(), path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Callable[..., Path]:
    """Writes so many pictures of each start of a name into a folder: photos("pictures", ok=20, bad=1)."""

    def written(name: str, **counts: int) -> Path:
        return write_photos(tmp_path / name, **counts)

    return written


@pytest.fixture
def hooked(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment in which files can be deadly, for processes that are started from here on."""
    path = os.pathsep.join((str(OPENING), ENVIRONMENT["PYTHONPATH"]))
    monkeypatch.setenv("PYTHONPATH", path)
    return ENVIRONMENT | {"PYTHONPATH": path}
