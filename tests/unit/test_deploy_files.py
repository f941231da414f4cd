"""The files in deploy/ name what is there: files, options of the command, names of an exported graph."""

import inspect
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from hybridvit.cli.serve import serve
from hybridvit.export.spec import INPUT

DEPLOY = Path(__file__).parents[2] / "deploy"


def options(words: Sequence[str]) -> set[str]:
    return {word.removeprefix("--") for word in words if word.startswith("--")}


def known() -> set[str]:
    names = set(inspect.signature(serve).parameters)
    limits = inspect.signature(serve).parameters["limits"].default
    return names | set(vars(limits))


def test_kserve_starts_the_service_with_options_that_it_has() -> None:
    runtime, service = yaml.safe_load_all((DEPLOY / "kserve.yaml").read_text(encoding="utf-8"))
    (container,) = runtime["spec"]["containers"]
    assert options(container["args"]) <= known()
    assert container["args"][container["args"].index("--port") + 1] == str(container["ports"][0]["containerPort"])
    assert service["spec"]["predictor"]["model"]["runtime"] == runtime["metadata"]["name"]


@pytest.mark.parametrize("name", ["Dockerfile", "hybridvit.service"])
def test_other_files_start_it_with_options_that_it_has(name: str) -> None:
    text = (DEPLOY / name).read_text(encoding="utf-8")
    started = re.findall(r"^(?:CMD|ExecStart).*", text, re.MULTILINE)
    assert started
    assert set(re.findall(r"--(\w+)", "\n".join(started))) <= known()
    for path in re.findall(r"/src/([\w.-]+\.txt)", text):
        assert (DEPLOY.parent / path).is_file()


def test_tritons_configuration_names_the_input_of_an_exported_file() -> None:
    text = (DEPLOY / "config.pbtxt").read_text(encoding="utf-8")
    assert re.findall(r'name: "(\w+)"', text) == ["fastvit", INPUT, "logits"]
