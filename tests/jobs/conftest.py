"""One exported model for all jobs, and pictures of which some are bad, slow or deadly."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import saved_models
from fresh import ENVIRONMENT, PROGRAMS
from PIL import Image

from hybridvit.export.pipeline import export

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
        folder = tmp_path / name
        folder.mkdir()
        for start, count in counts.items():
            for number in range(count):
                path = folder / f"{start}-{number:04}.png"
                if start == "bad":
                    path.write_bytes(b"no picture")
                    continue
                pixels = np.random.default_rng(number).integers(0, 256, (30 + number % 7, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(path)
        return folder

    return written


@pytest.fixture
def hooked(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment in which files can be deadly, for processes that are started from here on."""
    path = os.pathsep.join((str(OPENING), ENVIRONMENT["PYTHONPATH"]))
    monkeypatch.setenv("PYTHONPATH", path)
    return ENVIRONMENT | {"PYTHONPATH": path}
