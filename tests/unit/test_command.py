"""Commands made from typed functions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from hybridvit.cli.command import SignatureCommand
from hybridvit.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Options:
    """A set of options."""

    sizes: Sequence[tuple[int, int]] | None = None
    """sides in pixels, 100 % of them."""
    share: float = 0.5
    """how much
    of it."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """Another."""

    file: Path | None = None
    """where to."""


seen: list[object] = []


def work(name: str, *, options: Options = Options(), output: Output = Output(), loud: bool = False) -> None:
    """Do something.

    Args:
        name: of it.
        loud: tell of it.
    """
    seen[:] = [name, options, output, loud]


def test_the_fields_of_a_dataclass_are_options_beside_the_others() -> None:
    command = SignatureCommand("work", work)
    assert command.run(["it", "--sizes", "32", "192x320", "--file", "a/b.txt", "--loud"]) == 0
    assert seen == ["it", Options(sizes=[(32, 32), (192, 320)]), Output(file=Path("a/b.txt")), True]
    assert command.run(["it", "--share", "1"]) == 0
    assert seen == ["it", Options(share=1.0), Output(), False]


def test_their_docstrings_are_the_help_in_the_order_of_the_signature() -> None:
    text = SignatureCommand("work", work).help()
    options = [line.split()[0] for line in text.splitlines() if line.startswith("  --")]
    assert options == ["--sizes", "--share", "--file", "--loud"]
    assert "sides in pixels, 100 % of them.\n" in text
    assert "how much of it. (a number, default 0.5)" in text
    assert "options" not in text.partition("options:\n")[2]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["it", "--shares", "1"], "no option '--shares'. Nearest: '--share'"),
        (["it", "--options", "1"], "no option '--options'"),
        (["it", "--share", "much"], "--share is 'much', but it must be a number"),
        (["it", "--sizes", "32", "wide"], "'wide', but it must be a side or height x width"),
        ([], "also needs NAME"),
    ],
)
def test_a_wrong_word_is_named(words: list[str], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        SignatureCommand("work", work).run(words)
