"""Every fenced block of README and docs is run by a test, or says why not."""

import pytest
from documents import COMMENT_ONLY, LANGUAGES, ROOT, SHELL, Block, blocks_of, commands_of, pages
from page_runs import PROGRAMS, is_run

BLOCKS = [block for page in pages() for block in blocks_of(page)]


def named(blocks: list[Block]) -> list[object]:
    return [pytest.param(block, id=f"{block.page}:{block.line}") for block in blocks]


def test_no_block_is_of_an_unknown_fate() -> None:
    unknown = [str(each) for each in BLOCKS if not each.is_marked and each.language not in LANGUAGES]
    assert not unknown, "say what language they are, or mark them: <!-- not run: WHY -->, <!-- run by TEST -->"
    assert not [str(each) for each in BLOCKS if each.language not in (*LANGUAGES, *COMMENT_ONLY)]


def test_a_comment_tells_a_reason() -> None:
    poor = [str(each) for each in BLOCKS if each.reason and len(each.reason.split()) < 3]
    assert not poor
    assert not [str(each) for each in BLOCKS if each.is_marked and each.language == "text"]  # needs none


@pytest.mark.parametrize("block", named([each for each in BLOCKS if each.test]))
def test_a_test_that_runs_a_block_is_there_and_reads_the_page(block: Block) -> None:
    text = (ROOT / block.test).read_text(encoding="utf-8")
    assert "/".join(block.page.split("/")[-1:]) in text


def test_every_comment_stands_right_above_a_block() -> None:
    for page in pages():
        lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines):
            if line.strip().startswith(("<!-- not run", "<!-- run by")):
                assert lines[number + 1].strip().startswith("```"), f"{page}:{number + 1}"
    found = sum(
        line.strip().startswith(("<!-- not run", "<!-- run by"))
        for page in pages()
        for line in (ROOT / page).read_text(encoding="utf-8").splitlines()
    )
    assert found == sum(each.is_marked for each in BLOCKS)


def test_the_counts() -> None:
    """Printed for the record: pytest -rP."""
    shell = [each for each in BLOCKS if each.language in SHELL and not each.is_marked]
    commands = [command for each in shell for command in commands_of(each)]
    unmarked = [each.language for each in BLOCKS if not each.is_marked]
    print(
        f"{len(BLOCKS)} blocks: {sum(LANGUAGES.get(each) == 'run' for each in unmarked)} run, "
        f"{sum(LANGUAGES.get(each) == 'parsed' for each in unmarked)} parsed, "
        f"{sum(bool(each.test) for each in BLOCKS)} run by another test, "
        f"{sum(bool(each.reason) for each in BLOCKS)} not run with a reason, {unmarked.count('text')} of text; "
        f"{sum(map(is_run, commands))} command lines run, {sum(not is_run(each) for each in commands)} looked up"
    )
    assert PROGRAMS.keys() >= {command.split()[0] for command in commands if "=" not in command.split()[0]}
