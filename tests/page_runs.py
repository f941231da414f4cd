"""Runs the blocks of a document in a folder of their own, scaled down as scaled_down.py says.

`hybridvit ...` runs in this process, `curl ...` in a shell, Python blocks one after the other with the names of those
before them. Files that are named and not there are stand-ins (stand_ins.py).
"""

import ast
import dataclasses
import functools
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from documents import ROOT, SHELL, Block, commands_of
from fresh import ENVIRONMENT
from PIL import Image
from required import missing
from scaled_down import (
    BY_DAY,
    ELSEWHERE,
    FOLDERS,
    LARGE,
    ONCE,
    added,
    is_read_alone,
    measured_before,
    small_train,
    smaller,
)
from serving import Process, serving
from stand_ins import StandIns, scene
from static_host import static_host

from hybridvit.cli import main
from hybridvit.cli.command import SignatureCommand
from hybridvit.cli.main import command as command_named
from hybridvit.export.targets import EXPORTERS
from hybridvit.recipe.file import load_recipe

OUTPUTS = (
    "--output",
    "--json",
    "--chart",
    "--csv",
    "--page",
    "--lab",
    "--files",
    "--pictures",
)  # options whose files are written, not read
SECOND_IS_WRITTEN = ("shard", "corrupt", "hand")  # commands whose second word is written
SERVED_AT = "127.0.0.1:8000"  # in the documents
WITHIN_S = 300


@dataclasses.dataclass(frozen=True, kw_only=True)
class How:
    """How the blocks of a page are run."""

    folder: Path
    stand_ins: StandIns
    is_night: bool  # whether what takes minutes is carried out, or its words alone read


class PageRun:
    """The state of a page: what was defined, what serves."""

    def __init__(self, how: How) -> None:
        self._how = how
        self._names: dict[str, Any] = {"__name__": "document", **given_names()}
        self._variables = dict(FOLDERS)
        self._open = ExitStack()
        self._service: Process | None = None
        self._site = ""

    def __enter__(self) -> "PageRun":
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def run(self, block: Block) -> None:
        """Run a block that is not marked. Raises AssertionError, or what the block raises."""
        if block.language in SHELL:
            for command in commands_of(block):
                self._command(command, str(block))
        elif block.language == "python":
            self._python(block)
        elif block.language == "js":
            self._javascript(block)
        elif block.language == "json":
            json.loads(block.text)
        elif block.language == "yaml":
            self._yaml(block)
        else:
            assert block.language == "text", f"{block}: nobody knows what to do with this language."

    # commands

    def _command(self, command: str, where: str) -> None:
        words = [self._expanded(word) for word in shlex.split(command)]
        if ">" in words:
            words = words[: words.index(">")]
        carry_out = PROGRAMS.get(words[0]) or (_assign if re.match(r"\w+=", words[0]) else None)
        assert carry_out is not None, f"{where}: no test knows how to run '{words[0]}'. Mark the block, or say how."
        print(f"{where}: {shlex.join(words)}")
        carry_out(self, words, command, where)

    def _expanded(self, word: str) -> str:
        return re.sub(r"\$\{?(\w+)\}?", lambda found: self._variables.get(found[1], found[0]), word)

    def hybridvit(self, words: Sequence[str], _: str, where: str) -> None:
        """A command of this package."""
        name, rest = words[1], [self._near(word) for word in words[2:]]
        if name in LARGE:
            rest = list(dict.fromkeys(smaller(word) for word in rest))
        if name == "export" and not self._how.is_night and set(BY_DAY) & set(rest):
            rest = [word for word in rest if word not in EXPORTERS or word in BY_DAY]
        self._provide(name, rest)
        if name == "serve":
            self._serve(rest)
            return
        rest += added(name, rest)
        if is_read_alone(name, rest, is_night=self._how.is_night):
            assert read_alone(name, rest) == 0, where
            return
        if name in ONCE and (name, *rest) in _CARRIED_OUT:
            return
        _CARRIED_OUT.add((name, *rest))
        if before := measured_before(name, rest):
            assert main([name, *before]) == 0, where
        code = main([name, *rest])
        assert code == 0, f"{where}: {shlex.join([words[0], name, *rest])} ended with code {code}."

    def torchrun(self, words: Sequence[str], command: str, where: str) -> None:
        """What torchrun would start, in one process; its own options are read by its own parser."""
        from torch.distributed.run import get_args_parser

        options = get_args_parser().parse_args(list(words[1:]))
        assert options.module, f"{where}: the line starts no module."
        assert options.training_script == "hybridvit", f"{where}: the line does not start hybridvit."
        self.hybridvit(["hybridvit", *options.training_script_args], command, where)

    def shell(self, words: Sequence[str], command: str, where: str) -> None:
        """Anything else, in bash; addresses are those of what this page serves, and an answer of an error counts."""
        self._provide(words[0], [part for word in words for part in re.split(r"[@\s()]", word)])
        text = re.sub(r"\bcurl\b", "curl --silent --show-error --fail-with-body", self._addressed(command))
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", text], capture_output=True, timeout=WITHIN_S, cwd=self._how.folder
        )
        assert done.returncode == 0, f"{where}: {text}\n{done.stdout!r}\n{done.stderr!r}"

    def _provide(self, name: str, words: Sequence[str]) -> None:
        for place, word in enumerate(words):
            if (place and words[place - 1] in OUTPUTS) or (place == 1 and name in SECOND_IS_WRITTEN):
                continue
            for part in (word, word.rpartition("=")[2], word.partition("#")[0]):
                if beginning := re.split(r"[*?{}<>\s]", part)[0]:  # of a pattern
                    self._how.stand_ins.provide(beginning, self._how.folder)

    def _near(self, word: str) -> str:
        for pattern, instead in ELSEWHERE:
            if pattern.search(word):
                site = self._served_folder() if "{site}" in instead else ""
                local = pattern.sub(instead.format(site=""), word).strip("/")
                self._how.stand_ins.provide(local, self._how.folder)
                return pattern.sub(instead.format(site=site), word)
        return word

    def _served_folder(self) -> str:
        if not self._site:
            self._site = self._open.enter_context(static_host(self._how.folder)).rstrip("/")
        return self._site

    def _serve(self, words: Sequence[str]) -> None:
        self._service = self._open.enter_context(serving(*words))

    def _addressed(self, text: str) -> str:
        if SERVED_AT not in text:
            return text
        assert self._service is not None, f"Nothing is served, but the block asks {SERVED_AT}: {text}"
        return text.replace(SERVED_AT, f"127.0.0.1:{self._service.port}")

    def assign(self, words: Sequence[str], _: str, where: str) -> None:
        """NAME=value, for later lines."""
        for word in words if words[0] != "export" else words[1:]:
            name, equals, value = word.partition("=")
            assert equals, f"{where}: {word} gives no value."
            self._variables[name] = value

    # Python and data

    def _python(self, block: Block) -> None:
        tree = ast.parse(block.text, filename=str(block))
        if "bench(" in block.text and not self._how.is_night:
            return
        text = self._addressed(block.text)
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                near = self._near(node.value)
                self._provide("", [near])
                text = text.replace(f'"{node.value}"', f'"{near}"')
        text = text.replace("hybridvit.train(", "small_train(")
        if "bench(" in text:
            text = re.sub(r'"(\w+)"', lambda found: f'"{smaller(found[1])}"', text)
            text = text.replace("BenchOptions(", "BenchOptions(rounds=8, seconds=0.1, processes=1, threads=1, ")
        if "__main__" in text:  # a program that starts processes: they import its file
            file = self._how.folder / "program.py"
            file.write_text(text, encoding="utf-8")
            done = subprocess.run([sys.executable, file], capture_output=True, env=ENVIRONMENT, timeout=WITHIN_S)
            assert done.returncode == 0, f"{block}: {done.stderr.decode()}"
            return
        exec(compile("\n" * block.line + text, ROOT / block.page, "exec"), self._names)

    def _javascript(self, block: Block) -> None:
        """In Node, with `file` a picture."""
        node = shutil.which("node") or missing("node", "apt-get install nodejs")
        self._how.stand_ins.provide("photo.jpg", self._how.folder)
        before = 'import { readFileSync } from "node:fs";\nconst file = new Blob([readFileSync("photo.jpg")]);\n'
        program = self._how.folder / "program.mjs"
        program.write_text(before + self._addressed(block.text), encoding="utf-8")
        done = subprocess.run([node, program], capture_output=True, timeout=WITHIN_S, cwd=self._how.folder)
        assert done.returncode == 0, f"{block}: {done.stderr.decode()}"

    def _yaml(self, block: Block) -> None:
        """Any YAML is read; one that says `model:` or `task:` is a recipe."""
        for content in yaml.safe_load_all(block.text):
            if isinstance(content, dict) and {"model", "task"} & content.keys():
                file = self._how.folder / "recipe-of-the-page.yaml"
                file.write_text(block.text, encoding="utf-8")
                load_recipe(str(file), [])


def read_alone(name: str, words: Sequence[str]) -> int:
    """Read the words of a command as it does, values too, and do nothing."""
    found = command_named(name)
    assert isinstance(found, SignatureCommand)
    function = functools.wraps(found.function)(lambda **values: 0)
    return SignatureCommand(name, function).run(words)


def given_names() -> dict[str, Any]:
    """What documents speak of without making it: images of the size that the stand-ins take."""
    photo = Image.fromarray(scene(1).pixels)
    file = BytesIO()
    photo.save(file, "JPEG")
    images = np.random.default_rng(0).standard_normal((1, 3, 32, 32), dtype=np.float32)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    return {
        "images": images, "batch": images, "pixels": pixels, "jpeg_bytes": file.getvalue(), "pillow_image": photo,
        "small_train": small_train,
    }  # fmt: skip


def _extras(words: Sequence[str], where: str) -> None:
    """`pip install` installs nothing here, but the extras that it names have to be there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for word in words:
        for extra in re.findall(r"\[([\w,-]+)\]", word):
            for name in extra.split(","):
                assert name in project["optional-dependencies"], f"{where}: there is no extra '{name}'."


def _target(words: Sequence[str], where: str) -> None:
    """`make X` makes nothing here, but X has to be a target."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words[1:]:
        assert "=" in word or re.search(rf"^([\w ./-]+ )?{word}( [\w ./-]+)?:", text, re.M), (
            f"{where}: no target {word}."
        )


def _script(words: Sequence[str], where: str) -> None:
    """`python X.py --option` takes too long here, but the script and its options have to be there."""
    assert words[1].endswith(".py"), f"{where}: no test knows how to run this. Mark the block, or say how."
    script = ROOT / words[1]
    assert script.is_file(), f"{where}: there is no {words[1]}."
    text = script.read_text(encoding="utf-8")
    for word in words[2:]:
        if word.startswith("--"):
            assert f'"{word}"' in text, f"{where}: {words[1]} has no {word}."


_CARRIED_OUT: set[tuple[str, ...]] = set()
Carried = Callable[[PageRun, Sequence[str], str, str], None]
_assign: Carried = PageRun.assign
RUN: dict[str, Carried] = {
    "hybridvit": PageRun.hybridvit,
    "torchrun": PageRun.torchrun,
    **dict.fromkeys(("curl", "echo", "cat"), PageRun.shell),
    "export": PageRun.assign,
}
LOOKED_UP: dict[str, Callable[[Sequence[str], str], None]] = {"pip": _extras, "make": _target, "python": _script}
PROGRAMS: dict[str, Carried] = RUN | {
    name: lambda _run, words, _command, where, check=check: check(words, where) for name, check in LOOKED_UP.items()
}


def is_run(command: str) -> bool:
    """Whether a command is carried out, rather than looked up or an assignment."""
    return shlex.split(command)[0] in RUN and not command.startswith("export ")
