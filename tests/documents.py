"""The fenced blocks of README and docs: where they stand, what they hold, and whether a test runs them.

A block that is not run has one of two comments right above its fence:

    <!-- not run: it needs ImageNet and a GPU -->
    <!-- run by tests/browser/test_bench_page.py -->
"""

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHELL = ("bash", "sh")
LANGUAGES = {  # what becomes of a block without a comment
    "python": "run",
    **dict.fromkeys(SHELL, "run"),
    "js": "run",
    "json": "parsed",
    "yaml": "parsed",
    "text": "shown",  # what is printed, a tree of files: nothing to run
}
COMMENT_ONLY = ("cpp", "swift", "kotlin", "html", "dockerfile", "toml")  # blocks of these need a comment
DIRECTIVE = re.compile(r"\{[a-z-]+\}")  # of the generator of the site, such as {toctree}

_FENCE = re.compile(r"(?P<indent> *)(?P<fence>`{3,}|~{3,})\s*(?P<language>\S*)")
_COMMENT = re.compile(r"\s*<!-- (?P<kind>not run:|run by) (?P<text>.+?) -->\s*")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block of a page."""

    page: str  # below the root, with slashes
    line: int  # of its fence
    language: str
    text: str
    reason: str = ""  # why it is not run
    test: str = ""  # the file of the test that runs it, where that is another one

    def __str__(self) -> str:
        return f"{self.page}:{self.line} ({self.language or 'no language'})"

    @property
    def is_marked(self) -> bool:
        """Whether the comment above it says what becomes of it."""
        return bool(self.reason or self.test)


def pages() -> list[str]:
    """README and its neighbours, and everything in docs but what is built there: the reference, the site."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    names = [path.relative_to(ROOT) for path in found]
    return sorted(
        name.as_posix() for name in names if not any(part.startswith(("_", ".", "reference")) for part in name.parts)
    )


def blocks_of(page: str) -> list[Block]:
    """The blocks of a page in their order, but for directives of the generator of the site."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    return list(_blocks(page, lines))


def _blocks(page: str, lines: list[str]) -> Iterator[Block]:
    above, numbered = "", iter(enumerate(lines, start=1))
    for number, line in numbered:
        opened = _FENCE.fullmatch(line)
        if opened is None:
            above = line
            continue
        inside = []
        for _, text in numbered:
            if text.strip() == opened["fence"]:
                break
            inside.append(text)
        else:
            raise AssertionError(f"{page}:{number}: the block has no end.")
        if not DIRECTIVE.fullmatch(opened["language"]):
            said = _COMMENT.fullmatch(above)
            what = {} if said is None else {"reason" if said["kind"] == "not run:" else "test": said["text"]}
            text = textwrap.dedent("\n".join(inside)) + "\n"
            yield Block(page=page, line=number, language=opened["language"], text=text, **what)
        above = ""


def commands_of(block: Block) -> list[str]:
    """The commands of a block of shell, each with what belongs to it: continued lines, open quotes, pipes."""
    commands, pending = [], ""
    for line in block.text.splitlines():
        pending = without_comment(pending + line)
        if pending.endswith("\\"):
            pending = pending[:-1]
        elif _is_open(pending):
            pending += "\n"
        else:
            commands.append(pending.strip())
            pending = ""
    assert not pending, f"{block}: the last command has no end: {pending}"
    return [command for command in commands if command]


def without_comment(text: str) -> str:
    """The text up to a comment of the shell: a # at the beginning of a word, outside of quotes."""
    quote = ""
    for place, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter == "#" and (place == 0 or text[place - 1].isspace()):
            return text[:place].rstrip()
    return text


def _is_open(text: str) -> bool:
    try:
        shlex.split(text)
    except ValueError:
        return True
    return text.rstrip().endswith("|")
