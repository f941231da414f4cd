"""What README and docs say can be done is done: each page in a folder of its own, with stand-ins for what it names.

How much smaller is in scaled_down.py; blocks that say why they are not run, or which test runs them, are passed over.
"""

import re
from pathlib import Path

import pytest
from documents import LANGUAGES, blocks_of, pages
from page_runs import How, PageRun
from stand_ins import StandIns

import hybridvit
from hybridvit.checkpoints import save_upstream
from hybridvit.models.registry import VARIANTS

pytestmark = pytest.mark.longest

RUN = [
    page
    for page in pages()
    if any(not block.is_marked and LANGUAGES.get(block.language) in ("run", "parsed") for block in blocks_of(page))
]


def differs_by_night(page: str) -> bool:
    """Whether it may have a block that is read alone by day."""
    return any(re.search("bench|mixers|tables|export", block.text) for block in blocks_of(page))


@pytest.fixture(scope="session")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> StandIns:
    return StandIns(tmp_path_factory.mktemp("stand_ins"))


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty folder, with weights that are as published but for their values, and a cache of its own."""
    published = {
        weights.hub_id: name for name, each in VARIANTS.items() for weights in dict(each.published.weights).values()
    }

    def fetched(source: str, **_: object) -> Path:
        path = tmp_path.parent / f"{source.replace('/', '-')}.safetensors"
        if not path.exists():
            save_upstream(hybridvit.create_model(published[source]), path, "timm")
        return path

    monkeypatch.setattr("hybridvit.pretrained.fetch", fetched)
    monkeypatch.setenv("HYBRIDVIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def run_page(page: str, folder: Path, stand_ins: StandIns, *, is_night: bool) -> None:
    with PageRun(How(folder=folder, stand_ins=stand_ins, is_night=is_night)) as run:
        for block in blocks_of(page):
            if not block.is_marked:
                run.run(block)


@pytest.mark.parametrize("page", RUN)
def test_the_blocks_of_a_page_run(
    page: str, tmp_path: Path, stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hybridvit.export.apart.in_child", lambda work, show: work())  # whose imports take 7 s
    run_page(page, tmp_path, stand_ins, is_night=False)


@pytest.mark.nightly
@pytest.mark.parametrize("page", [page for page in RUN if differs_by_night(page)])
def test_the_blocks_of_a_page_run_whole(page: str, tmp_path: Path, stand_ins: StandIns) -> None:
    run_page(page, tmp_path, stand_ins, is_night=True)
