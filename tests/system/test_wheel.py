"""The wheel and the source distribution hold what the package needs and nothing else, and work outside the checkout."""

import tarfile
import tomllib
import zipfile
from pathlib import Path

import environments
import pytest
import yaml
from environments import ROOT, Environment
from packaging.metadata import Metadata
from packaging.requirements import Requirement

import hybridvit

NAME = f"hybridvit-{hybridvit.__version__}"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environments.clean_copy(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environments.built(source, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environments.built(source, "sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Metadata:
    with zipfile.ZipFile(wheel) as file:
        return Metadata.from_email(file.read(f"{NAME}.dist-info/METADATA"), validate=True)


def test_the_wheel_holds_every_file_of_the_package_and_no_other(wheel: Path, source: Path) -> None:
    added = ("METADATA", "WHEEL", "entry_points.txt", "licenses/LICENSE", "RECORD")
    package = {path.relative_to(source).as_posix() for path in (source / "hybridvit").rglob("*") if path.is_file()}
    assert wheel.name == f"{NAME}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as file:
        assert set(file.namelist()) == package | {f"{NAME}.dist-info/{name}" for name in added}
        assert all(file.read(name) == (source / name).read_bytes() for name in package)


def test_the_source_distribution_makes_the_same_wheel(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    assert sdist.name == f"{NAME}.tar.gz"
    with tarfile.open(sdist) as file:
        parts = {name.removeprefix(f"{NAME}/").partition("/")[0] for name in file.getnames()}
        file.extractall(tmp_path / "source", filter="data")
    texts = {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "pyproject.toml", "PKG-INFO", ".gitignore"}
    assert parts == {"hybridvit", *texts}
    again = environments.built(tmp_path / "source" / NAME, "wheel", tmp_path / "wheel")
    assert again.read_bytes() == wheel.read_bytes()


def test_the_metadata_says_what_pyproject_says(metadata: Metadata) -> None:
    with open(ROOT / "pyproject.toml", "rb") as file:
        project = tomllib.load(file)["project"]
    assert (metadata.name, str(metadata.version)) == ("hybridvit", hybridvit.__version__)
    assert metadata.license_expression == "Apache-2.0"
    assert str(metadata.requires_python) == project["requires-python"]
    assert set(metadata.provides_extra or ()) == set(project["optional-dependencies"])
    assert set(map(Requirement, project["dependencies"])) <= set(metadata.requires_dist or ())


def test_a_package_index_can_show_the_readme(metadata: Metadata) -> None:
    from readme_renderer.markdown import render

    assert metadata.description_content_type == "text/markdown"
    assert metadata.description is not None
    page = render(metadata.description)
    assert page is not None
    assert page.count("<h2") == (ROOT / "README.md").read_text(encoding="utf-8").count("\n## ")


def test_every_place_that_names_the_version_names_this_one() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == hybridvit.__version__
    headings = [line for line in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines() if line[:3] == "## "]
    assert headings[0].split()[1] == hybridvit.__version__
    assert f"hybridvit-serve:{hybridvit.__version__} " in (ROOT / "deploy/kserve.yaml").read_text(encoding="utf-8")


def test_the_installed_wheel_trains_predicts_and_exports_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    environment = environments.beside_installed_packages(tmp_path, wheel)
    settings = ("--model", "fastvit_debug", "--schedule.epochs", 3)
    _trains_predicts_and_exports(environment, *settings)


@pytest.mark.nightly  # by day the packages are those of the tests
def test_an_empty_environment_becomes_one_that_trains_predicts_and_exports(wheel: Path, tmp_path: Path) -> None:
    environment = environments.empty(tmp_path)
    done = environments.install_with_pip(environment, f"{wheel}[export,digits]", check=False)
    if done.returncode:
        environments.missing("network", f"pip could not install the wheel ({done.stderr[-300:].strip()})")
    _trains_predicts_and_exports(environment)


def _trains_predicts_and_exports(environment: Environment, *settings: object) -> None:
    """The recipe digits with these settings, and what is made of its checkpoint; each word as it is typed."""
    home = environment.output_of("python", "-c", "import hybridvit; print(hybridvit.__file__)")
    assert Path(home.strip()).is_relative_to(environment.folder)
    assert environment.output_of("hybridvit", "--version") == f"hybridvit {hybridvit.__version__}\n"
    environment.output_of("hybridvit", "train", "digits", *settings)
    checkpoint = environment.outside / "runs" / "digits" / "model.safetensors"
    exported = checkpoint.with_suffix(".onnx")
    environment.output_of("hybridvit", "export", checkpoint, "--to", "onnx", "--output", exported)
    digit = next((environment.outside / "runs" / "data" / "digits" / "test").rglob("*.png"))
    answers = [environment.output_of("hybridvit", "predict", file, digit) for file in (checkpoint, exported)]
    assert answers[0] == answers[1]
    assert "%" in answers[0]
    assert "<html" in (checkpoint.parent / "report.html").read_text(encoding="utf-8")
