"""The files that others' tools read say what is true: the citation, the forms for issues, hooks, the container."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import hybridvit

ROOT = Path(__file__).parents[2]
FORM_FIELDS = {"checkboxes", "dropdown", "input", "markdown", "textarea"}


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_the_citation_has_what_its_format_asks_for() -> None:
    citation = read("CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == hybridvit.__version__
    assert citation["type"] == "software"
    assert [paper["url"].rpartition("/")[2] for paper in citation["references"]] == ["2303.14189", "2306.06189"]
    for paper in citation["references"]:
        assert {"type", "authors", "title", "year", "conference"} <= set(paper)
        assert all(set(author) == {"family-names", "given-names"} for author in paper["authors"])


@pytest.mark.parametrize("name", ["bug", "feature"])
def test_the_forms_for_issues_can_be_shown(name: str) -> None:
    form = read(f".github/ISSUE_TEMPLATE/{name}.yml")
    assert {"name", "description", "body"} <= set(form)
    names = [field["id"] for field in form["body"]]
    assert len(set(names)) == len(names)
    for field in form["body"]:
        assert field["type"] in FORM_FIELDS
        assert field["attributes"]["label"]


def test_hooks_and_container_run_what_there_is() -> None:
    hooks = [hook for repo in read(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    assert all(re.match(r"\.venv/bin/ruff (check|format) ", hook["entry"]) for hook in hooks)
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    targets = re.findall(r"^([\w.\-/ ]+):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    known = {target for line in targets for target in line.split()}
    assert set(container["postCreateCommand"].removeprefix("make ").split()) <= known


def test_what_the_security_policy_names_exists() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    for path in re.findall(r"`(tests/[\w/.]+)`", text) + re.findall(r"\]\(([\w/.]+)\)", text):
        assert (ROOT / path).is_file(), path
