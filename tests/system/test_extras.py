"""Each extra can be installed alone beside the wheel, and brings what the doctor looks for."""

import sys
from pathlib import Path

import environments
import pytest

from hybridvit.machine.packages import IMPORT_NAMES, required_and_optional

EXTRAS = required_and_optional()[1]
HEAVY = {"coreml", "executorch", "litert", "openvino", "ray", "tensorrt", "robustness", "wandb"}
"""More than 100 MB, or for another system or torch: pip says what it would install."""
NOT_HERE = {"coreai": sys.platform != "darwin", "coreml": sys.platform == "win32"}

pytestmark = [
    pytest.mark.nightly,  # packages come over the network
    pytest.mark.skipif(sys.platform == "win32", reason="links need a right there that not everybody has"),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = environments.clean_copy(tmp_path_factory.mktemp("source"))
    return environments.built(source, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def required(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environments.required_packages(tmp_path_factory.mktemp("required"))


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_an_extra_can_be_installed_alone(extra: str, wheel: Path, required: Path, tmp_path: Path) -> None:
    if NOT_HERE.get(extra):
        pytest.skip(f"the packages of {extra} are for another system")
    environment = environments.beside(tmp_path, [required])
    words = ["--dry-run"] if extra in HEAVY else []
    done = environments.install_with_pip(environment, *words, f"{wheel}[{extra}]", check=False)
    if done.returncode and "wheel_stub" in done.stderr + done.stdout:
        pytest.skip(f"packages of {extra} come from an index of their own, which is not reached from here")
    if done.returncode and "conflict" not in done.stderr:
        environments.missing("network", f"pip could not install the extra {extra} ({done.stderr[-300:].strip()})")
    assert done.returncode == 0, done.stderr
    if not words:
        modules = [IMPORT_NAMES.get(name, name.replace("-", "_")) for name in EXTRAS[extra]]
        environment.output_of("python", "-c", f"import {', '.join(modules)}")
