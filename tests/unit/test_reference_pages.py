"""The reference of the docs leaves nothing out, and no page of the docs lies where nobody finds it."""

import re
from pathlib import Path

import pytest
from reference_pages import help_of, reference_pages, write_reference

import hybridvit
from hybridvit.cli.main import ORDER
from hybridvit.recipe.file import RECIPES, keys_of, recipe_names
from hybridvit.task import COMMANDS, TASKS, find_task

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GENERATED = ("_build", "_ext", "reference")
COMMAND_LINES = [*ORDER, *(f"{group} {word}" for group, each in COMMANDS.items() for word in each.functions)]


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return reference_pages()


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_the_page_of_a_command_has_every_argument_and_text_of_its_help(pages: dict[str, str], line: str) -> None:
    name, _, word = line.partition(" ")
    text, summary = help_of(name, word)
    page = pages[f"commands/{line.replace(' ', '-')}.md"].replace("\\", "")
    keys = pages["recipe-keys.md"].replace("\\", "")
    assert summary in page
    for term in re.findall(r"^  (--?\w\S*)", text, flags=re.MULTILINE):
        assert f"{{option}} {term}" in page or f"{{confval}} {term[2:]}\n" in keys, term


def test_every_key_of_every_task_is_described_once_with_type_and_meaning(pages: dict[str, str]) -> None:
    described = re.findall(r":::\{confval\} (\S+)\n:type: .+\n(?:.+\n)*\n(?:.+)\n:::", pages["recipe-keys.md"])
    assert set(described) == {key for name in TASKS for key in keys_of(find_task(name).recipe)[1]}


def test_every_recipe_is_listed_and_shown_with_its_whole_file(pages: dict[str, str]) -> None:
    for name, path in recipe_names().items():
        task = path.relative_to(RECIPES).parts[0]
        assert f"](recipes/{task}.md#{name})" in pages["recipes.md"]
        _, _, section = pages[f"recipes/{task}.md"].partition(f"\n## {name}\n")
        assert section.partition("\n## ")[0].endswith(f"{path.read_text(encoding='utf-8').rstrip()}\n```\n")


def test_every_public_name_of_python_is_described(pages: dict[str, str]) -> None:
    described = re.findall(r"^\.\. auto\w+:: hybridvit\.(\w+)$", pages["api.rst"], flags=re.MULTILINE)
    assert sorted(described) == sorted(hybridvit.__all__)


def test_a_page_of_what_is_no_longer_there_is_removed_and_others_keep_their_time(tmp_path: Path) -> None:
    write_reference(tmp_path)
    kept, old = tmp_path / "commands" / "train.md", tmp_path / "commands" / "gone.md"
    before = kept.stat().st_mtime_ns
    old.write_text("# hybridvit gone", encoding="utf-8")
    write_reference(tmp_path)
    assert not old.exists()
    assert kept.stat().st_mtime_ns == before


def test_the_index_leads_to_every_page() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    pages = {path.relative_to(DOCS) for path in DOCS.rglob("*.md")}
    written = {path.as_posix() for path in pages if path.parts[0] not in GENERATED} - {"index.md"}
    assert written == set(re.findall(r"\]\(([\w/-]+\.md)\)", index))


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_of_the_files_beside_the_docs_lead_somewhere(name: str) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / name).read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert not missing


def test_the_readme_is_one_screen() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 90
