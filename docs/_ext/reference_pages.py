"""The pages of the reference, written anew for each build: commands, keys of recipes, recipes, the Python API.

They come from the code that `--help` is printed by, so they cannot differ from it.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from unittest import mock

import hybridvit
import hybridvit.errors
from hybridvit.annotations import as_text, in_words
from hybridvit.cli import help as help_module
from hybridvit.cli.group import GroupCommand
from hybridvit.cli.main import ORDER, command
from hybridvit.cli.recipe_keys import KeySection, other_sections, usual_sections
from hybridvit.recipe.file import RECIPES, recipe_names, recipe_titles
from hybridvit.task import COMMANDS

WIDE = 100_000  # columns: so that no text is broken, whose words could not be joined again
FENCE = "`" * 3
COLONS = ":::"  # around directives, so that these are no blocks of code to other readers of Markdown
GIVEN = (  # what functions and methods take and give, that has no short name
    "hybridvit.training.train.RunResult",
    "hybridvit.evaluate.run.Evaluation",
    "hybridvit.evaluate.agreement.Agreement",
    "hybridvit.scores.Scores",
    "hybridvit.quantity.Quantity",
    "hybridvit.publish.push.Pushed",
    "hybridvit.export.pipeline.ExportReport",
    "hybridvit.export.parity.Parity",
    "hybridvit.export.exporter.WeightCheck",
    "hybridvit.export.quantise.quality.Quality",
    "hybridvit.export.spec.GraphSpec",
    "hybridvit.export.runners.Runner",
    "hybridvit.measure.bench.BenchResult",
    "hybridvit.measure.result.BenchRow",
    "hybridvit.measure.result.Skipped",
    "hybridvit.machine.facts.MachineCard",
    "hybridvit.folding.report.FoldReport",
    "hybridvit.scores.Result",
    "hybridvit.predictor.Answer",
    "hybridvit.predictor.Prepared",
    "hybridvit.data.inputs.Shown",
    "hybridvit.data.tiles.Tiling",
    "hybridvit.data.tiles.Tile",
    "hybridvit.data.inputs.FrameAt",
    "hybridvit.data.inputs.Footage",
    "hybridvit.batch.Frame",
    "hybridvit.measure.latency.Latency",
    "hybridvit.models.whole.WholeModel",
    "hybridvit.card.ModelCard",
    "hybridvit.card.Preprocessing",
)


def write_reference(folder: Path) -> None:
    """Write all pages into `folder`. A page that did not change keeps its time, so that it is not built again."""
    pages = reference_pages()
    for path in folder.rglob("*.*"):
        if path.relative_to(folder).as_posix() not in pages:
            path.unlink()
    for name, text in pages.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def reference_pages() -> dict[str, str]:
    """The text of each page, by its path inside the folder of the reference."""
    pages = {"api.rst": api_page(), "recipe-keys.md": keys_page()}
    lines = []
    for name in (*ORDER, *(f"{group} {word}" for group, each in COMMANDS.items() for word in each.functions)):
        group, _, word = name.partition(" ")
        text, summary = help_of(group, word)
        file = name.replace(" ", "-")
        pages[f"commands/{file}.md"] = command_page(name, text)
        lines.append((f"[`hybridvit {name}`](commands/{file}.md)", escaped(summary)))
    pages["commands.md"] = index_page(
        "Commands",
        "Options stand anywhere behind the command. `--debug` shows the traceback of an error, `--version` the "
        f"version. What the page of a command says is printed by `hybridvit NAME --help` too.\n\n{_exit_codes()}",
        {"": lines},
        [path for path in pages if path.startswith("commands/")],
    )
    return pages | recipe_pages() | included_pages()


def included_pages() -> dict[str, str]:
    """The files beside the README that are read on the site too."""
    return {
        f"{name.lower()}.md": f"{COLONS}{{include}} ../../{name}.md\n:relative-docs: docs/\n{COLONS}\n"
        for name in ("CHANGELOG", "CONTRIBUTING")
    }


def help_of(name: str, word: str = "") -> tuple[str, str]:
    """What `hybridvit NAME [WORD] --help` prints, on lines of any width, and the summary of the command."""
    without_colours = mock.patch.dict(os.environ, {"PYTHON_COLORS": "0"})  # which argparse has for a terminal
    with without_colours, mock.patch.object(help_module, "help_width", return_value=WIDE):
        named = command(name)
        if word:
            assert isinstance(named, GroupCommand)
            named = named.part(word)
        return named.help(), named.summary


def command_page(name: str, text: str) -> str:
    """The page of a command, from its help: usage, paragraphs, examples, and a list of each group of arguments."""
    if name == "train":
        text = text[: text.index("\nThe run:\n")]
    parts = [f"# hybridvit {name}"]
    for block in re.split(r"\n\n+", text.strip("\n")):
        first, _, rest = block.partition("\n")
        if first.startswith("usage:"):
            parts.append(fenced("text", re.sub(r"\n\s+", "\n", block.removeprefix("usage:").strip())))
        elif first == "Examples:":
            parts += ["## Examples", fenced("text", re.sub("^  ", "", rest, flags=re.MULTILINE))]
        elif first.endswith(":") and rest.startswith("  "):
            parts += [f"## {first[:-1].capitalize()}", *_entries(rest)]
        else:
            parts.append(escaped(" ".join(block.split())))
    if name == "train":
        parts += ["## Keys of the recipe", "Every key is an option as well: [keys of recipes](../recipe-keys.md)."]
    return "\n\n".join(parts) + "\n"


def _entries(text: str) -> list[str]:
    """A description of each argument, from lines "  --name METAVAR    its text", which may go on below it."""
    entries: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if re.match(r"  \S", line):
            term, _, words = line.strip().partition("  ")
            entries.append((term, [words.strip()]))
        else:
            entries[-1][1].append(line.strip())
    return [f"{COLONS}{{option}} {term}\n{escaped(' '.join(words).strip())}\n{COLONS}" for term, words in entries]


def keys_page() -> str:
    """Every key of a recipe, with its type, its default and its meaning."""
    parts = [
        "# Keys of recipes",
        "A recipe is a YAML file with those of these keys that differ from their defaults; each is an option of "
        "[`hybridvit train`](commands/train.md) too. `hybridvit train RECIPE --print_config` prints all that a recipe "
        "comes to. A key of a group is written `data.root` on the command line, and in YAML:",
        fenced("yaml", "data:\n  root: photos"),
    ]
    seen: set[str] = set()
    for section in (*usual_sections(), *other_sections()):
        parts += [f"## {escaped(section.title)}", *_keys(section, seen)]
    return "\n\n".join(parts) + "\n"


def _keys(section: KeySection, seen: set[str]) -> Iterable[str]:
    for key in section.keys:
        facts = [f":type: {json.dumps(in_words(key.annotation), ensure_ascii=False)}"]
        if key.default not in (None, ""):
            facts.append(f":default: {json.dumps(f'`{as_text(key.default)}`', ensure_ascii=False)}")
        if key.name in seen:  # of another task, with another type: links go to the first
            facts.append(":no-index:")
        seen.add(key.name)
        body = escaped(key.text.replace("%%", "%"))
        yield "\n".join([f"{COLONS}{{confval}} {key.name}", *facts, "", body, COLONS])


def recipe_pages() -> dict[str, str]:
    """A page for the recipes of each task, and one that lists them all."""
    titles = recipe_titles()
    sections: dict[str, list[str]] = {}
    lines: dict[str, list[tuple[str, str]]] = {}
    for name, path in recipe_names().items():
        task, title = path.relative_to(RECIPES).parts[0], escaped(titles[name])
        yaml = path.read_text(encoding="utf-8").rstrip()
        sections.setdefault(task, [f"# Recipes: {task}"]).extend(
            [f"## {name}", title, fenced("text", f"hybridvit train {name}"), fenced("yaml", yaml)]
        )
        lines.setdefault(task, []).append((f"[{name}](recipes/{task}.md#{name})", title))
    pages = {f"recipes/{task}.md": "\n\n".join(parts) + "\n" for task, parts in sections.items()}
    pages["recipes.md"] = index_page(
        "Recipes",
        "They come with the package: `hybridvit train NAME`. The head of each says its source, its hardware, the "
        "published figure, and what came out here where it was trained.",
        lines,
        list(pages),
    )
    return pages


def api_page() -> str:
    """Every public name of the package, and what its functions take and give; in autodoc's own language."""
    names = sorted(hybridvit.__all__)
    classes = [name for name in names if isinstance(getattr(hybridvit, name), type)]
    errors = [name for name, each in vars(hybridvit.errors).items() if _is_error(each)]
    parts = [
        _titled("Python", "="),
        "Everything below is loaded when it is first used: ``import hybridvit`` itself takes no time. What the "
        "commands do is a function of the same name here.",
        _titled("Functions", "-"),
        *(f".. autofunction:: hybridvit.{name}" for name in names if name not in classes),
        _titled("Classes", "-"),
        *(f".. autoclass:: hybridvit.{name}\n   :members:" for name in classes),
        _titled("What functions take and give", "-"),
        *(f".. autoclass:: {path}\n   :members:\n   :exclude-members: count, index" for path in GIVEN),
        _titled("Errors", "-"),
        "Each says the value, the rule and the fix, and has the exit code of the command line.",
        *(f".. autoexception:: hybridvit.errors.{name}\n   :members:\n   :show-inheritance:" for name in errors),
    ]
    return "\n\n".join(parts) + "\n"


def _is_error(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, hybridvit.errors.HybridViTError)


def _titled(title: str, line: str) -> str:
    return f"{title}\n{line * len(title)}"


def index_page(title: str, lead: str, groups: Mapping[str, Sequence[tuple[str, str]]], files: Sequence[str]) -> str:
    """A page that lists others in tables, one a group."""
    parts = [f"# {title}", lead]
    for group, lines in groups.items():
        parts += [f"## {group}"] if group else []
        parts.append("\n".join(["| | |", "|---|---|", *(f"| {link} | {text} |" for link, text in lines)]))
    listed = "\n".join(file.removesuffix(".md") for file in files)
    parts.append(f"{COLONS}{{toctree}}\n:hidden:\n\n{listed}\n{COLONS}")
    return "\n\n".join(parts) + "\n"


def _exit_codes() -> str:
    from hybridvit.cli.main import OVERVIEW

    return escaped(" ".join(OVERVIEW[OVERVIEW.index("exit codes:") :].split()).capitalize()) + "."


def fenced(language: str, text: str) -> str:
    """A block of code."""
    return f"{FENCE}{language}\n{text}\n{FENCE}"


def escaped(text: str) -> str:
    """Plain text as Markdown; what stands between backticks stays code."""
    code = re.split(r"(`[^`]+`)", text)
    return "".join(
        part if place % 2 else re.sub(r"([\\*_<>\[\]|#$~])", r"\\\1", part) for place, part in enumerate(code)
    )
