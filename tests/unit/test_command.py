"""Commands made from typed functions."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from hybridvit.cli.command import SignatureCommand
from hybridvit.demo.demos import DEMOS
from hybridvit.demo.walkthrough import commands
from hybridvit.errors import UsageError, command_line, nearest
from hybridvit.measure.subject import find_subject
from hybridvit.models.registry import find_variant
from hybridvit.recipe.file import keys_of, load_recipe
from hybridvit.task import find_task


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


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("optm.lr", "Nearest: 'optim.lr'"),
        ("lr", "Nearest: 'optim.lr'"),  # the end of a dotted name
        ("epochs", "Nearest: 'schedule.epochs'"),
        (
            "patience",
            "There are 'optim.lr', 'optim.name', 'schedule.epochs', 'augment.scale', 'mesa.weight' and 1 more",
        ),
        (
            "class_weights",
            "There are 'optim.lr', 'optim.name', 'schedule.epochs', 'augment.scale', 'mesa.weight' and 1",
        ),
    ],
)
def test_a_hint_is_given_by_spelling_only_where_something_is_near(name: str, hint: str) -> None:
    known = ("optim.lr", "optim.name", "schedule.epochs", "augment.scale", "mesa.weight", "distill.teacher_weights")
    assert nearest(name, known).startswith(hint)
    assert nearest("zzz", known, otherwise="See the help") == "See the help"
    assert nearest("zzz", ["a"]) == "There is 'a'"


@pytest.mark.parametrize("key", ["loss", "beta_schedule", "num_gpus"])
def test_an_unknown_key_that_nothing_is_near_names_no_other(key: str) -> None:
    with pytest.raises(UsageError, match=f"Recipe key '{key}' is unknown. .*`hybridvit train --help`") as caught:
        load_recipe("digits", [f"--{key}", "1"])
    assert not [each for each in keys_of(find_task("classify").recipe)[1] if f"'{each}'" in str(caught.value)]


def test_an_unknown_name_is_not_answered_with_dozens() -> None:
    for call in (lambda: find_variant("zzzqqq"), lambda: load_recipe("zzzqqq"), lambda: find_subject("zzzqqq")):
        with pytest.raises(UsageError) as caught:
            call()
        assert len(str(caught.value)) < 250


def test_a_command_that_is_shown_runs_when_it_is_pasted() -> None:
    words = ["hybridvit", "predict", "my runs/it's a model.safetensors", "a&b.png"]
    shown = command_line(*words)
    if sys.platform != "win32":
        assert shlex.split(shown) == words
    assert command_line("hybridvit", "export", Path("runs/x/model.safetensors")) == (
        "hybridvit export " + str(Path("runs/x/model.safetensors"))
    )
    by_hand = dict(commands(DEMOS["digits"], Path("my runs"), Path("data/test")))
    assert by_hand["Fold"] == command_line("hybridvit", "fold", Path("my runs/model.safetensors"))
