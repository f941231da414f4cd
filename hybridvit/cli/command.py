"""A command of the command line, made from a typed function: its signature is its options, its docstring its help."""

import argparse
import dataclasses
import inspect
import re
import textwrap
import typing
from abc import ABC, abstractmethod
from collections import ChainMap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hybridvit.annotations import converted
from hybridvit.cli.help import HelpFormatter, described, field_texts, one_line, reflow
from hybridvit.cli.size import Size, parse_size
from hybridvit.errors import UsageError, nearest
from hybridvit.task import TASKS, TaskOptions, find_task, names_of

READERS: dict[Any, Callable[[str], Any]] = {Path: Path, Size: parse_size}
"""Types of which any text that they take is right, or says itself what is wrong."""


class Command(ABC):
    """One word after `hybridvit`."""

    name: str
    summary: str  # one line for the overview

    @abstractmethod
    def help(self) -> str:
        """The text of `hybridvit NAME --help`."""

    @abstractmethod
    def run(self, words: Sequence[str]) -> int:
        """Carry out `words`; the exit code."""


class SignatureCommand(Command):
    """Parameters without a default are positional (a list takes one or more words); keyword-only ones are options.

    A parameter that is a dataclass stands for its fields, each with a default: they are options like the others, and
    their docstrings the help. One of the type TaskOptions stands for what any task can be told of pictures.
    """

    def __init__(self, name: str, function: Callable[..., int | None]) -> None:
        self.name = name
        self.function = function
        self.description, self._texts = _read_docstring(inspect.getdoc(function) or "")
        self.summary = self.description.splitlines()[0]
        self._parameters: dict[str, inspect.Parameter] = {}
        self._asking = ""  # the parameter that takes what tasks can be told
        self._asked: list[type] = []  # what that is, once it is looked for
        self._groups: dict[str, Any] = {}  # the dataclasses, by the parameter that takes one
        for each in inspect.signature(function, eval_str=True).parameters.values():
            if each.annotation is TaskOptions:
                self._asking = each.name
            elif dataclasses.is_dataclass(each.annotation):
                self._groups[each.name] = each.annotation
                self._parameters |= _fields(each.annotation)
            else:
                self._parameters[each.name] = each
        self._see = f"See `hybridvit {name} --help`."

    def help(self) -> str:
        """Usage, description with examples, arguments, options with defaults."""
        self._ask_tasks()
        return self._parser().format_help()

    def run(self, words: Sequence[str]) -> int:
        """Read `words` and call the function."""
        if "--help" in words or "-h" in words:
            print(self.help(), end="")
            return 0
        if any(word.startswith("--") and word.partition("=")[0] not in self._options() for word in words):
            self._ask_tasks()
        self._check_option_names(words)
        values = self._values(words)
        if self._asked:
            told = [name for group in self._asked for name in names_of(group) if name in values]
            values[self._asking] = TaskOptions({each: values.pop(each) for each in told})
        for name, group in self._groups.items():
            named = [field.name for field in dataclasses.fields(group) if field.name in values]
            values[name] = group(**{each: values.pop(each) for each in named})
        return self.function(**values) or 0

    def _ask_tasks(self) -> None:
        """Add the options of the tasks. Only where they are needed: all tasks are imported for them."""
        if self._asking and not self._asked:
            self._asked = [asking for name in TASKS if (asking := find_task(name).asking) is not None]
            for group in self._asked:
                self._parameters |= _fields(group)

    def _options(self) -> list[str]:
        return [_word(each) for each in self._parameters.values() if each.kind is each.KEYWORD_ONLY]

    def _values(self, words: Sequence[str]) -> dict[str, Any]:
        """The values of the parameters among `words`, by name. Raises UsageError."""
        texts, unknown = split(words, self._parser(), self.name)
        given = {name: text for name, text in texts.items() if text is not None}
        missing = [name for name, each in self._parameters.items() if each.default is each.empty and name not in given]
        if missing:
            raise UsageError(f"`hybridvit {self.name}` also needs {', '.join(missing).upper()}. {self._see}")
        if unknown:
            raise UsageError(f"`hybridvit {self.name}`: unrecognized arguments: {' '.join(unknown)}. {self._see}")
        return {name: self._value(self._parameters[name], text) for name, text in given.items()}

    def _value(self, parameter: inspect.Parameter, text: Any) -> Any:
        if isinstance(text, list):
            return [self._value(parameter.replace(annotation=_item_type(parameter.annotation)), each) for each in text]
        if reader := _reader(parameter.annotation):
            return reader(text)
        return converted(text, parameter.annotation, name=f"--{parameter.name}", fix=self._see)

    def _parser(self) -> argparse.ArgumentParser:
        """A parser that takes every argument as text; its help says which type each must have."""
        positional = (each for each in self._parameters.values() if each.kind is not each.KEYWORD_ONLY)
        words = [f"{each.name.upper()}{'...' if _item_type(each.annotation) else ''}" for each in positional]
        parser = argparse.ArgumentParser(
            prog=f"hybridvit {self.name}",
            usage=" ".join(["hybridvit", self.name, *words, "[--option value]..."]),
            description=reflow(self.description),
            formatter_class=HelpFormatter,
            add_help=False,
            allow_abbrev=False,
            exit_on_error=False,
        )
        parser.add_argument("-h", "--help", action="help", help="Show this help message and exit.")
        texts = ChainMap(self._texts, *map(field_texts, [*self._groups.values(), *self._asked]))
        for parameter in self._parameters.values():
            argument = parser.add_argument(_word(parameter), **_settings(parameter, texts[parameter.name]))
            argument.required = False  # `_values` names all that are missing
        return parser

    def _check_option_names(self, words: Sequence[str]) -> None:
        options = self._options()
        for word in words:
            name = word.partition("=")[0]
            if word.startswith("--") and name not in options:
                raise UsageError(
                    f"`hybridvit {self.name}` has no option '{name}'. {nearest(name, options)}. {self._see}"
                )


def split(words: Sequence[str], parser: argparse.ArgumentParser, name: str) -> tuple[dict[str, Any], list[str]]:
    """The values of the arguments that `parser` knows, and the words left over. Raises UsageError."""
    try:
        known, rest = parser.parse_known_args(words)
    except argparse.ArgumentError as error:
        raise UsageError(f"`hybridvit {name}`: {error}. See `hybridvit {name} --help`.") from error
    return vars(known), rest


def _word(parameter: inspect.Parameter) -> str:
    """What stands for a parameter on the command line."""
    return f"--{parameter.name}" if parameter.kind is parameter.KEYWORD_ONLY else parameter.name


def _settings(parameter: inspect.Parameter, text: str) -> dict[str, Any]:
    """What `add_argument` is told of a parameter besides its name."""
    annotation = parameter.annotation
    if annotation is bool:
        return {"action": "store_true", "help": text}
    default = None if parameter.default is parameter.empty else parameter.default
    if item := _item_type(annotation):
        return {"nargs": "+", **described(text, str if item in READERS else item, " ".join(default or ()))}
    return described(text, str if _reader(annotation) else annotation, default)


def _reader(annotation: Any) -> Callable[[str], Any] | None:
    """What reads the text of a type of READERS, or of one or None."""
    return next((READERS[kind] for kind in (annotation, *typing.get_args(annotation)) if kind in READERS), None)


def _fields(group: Any) -> dict[str, inspect.Parameter]:
    """The fields of a dataclass as parameters."""
    hints, kind = typing.get_type_hints(group), inspect.Parameter.KEYWORD_ONLY
    return {
        each.name: inspect.Parameter(each.name, kind, default=each.default, annotation=hints[each.name])
        for each in dataclasses.fields(group)
    }


def _item_type(annotation: Any) -> Any:
    """X of list[X], Sequence[X], and of these or None; None for anything else."""
    for candidate in (annotation, *typing.get_args(annotation)):
        if typing.get_origin(candidate) in (list, Sequence):
            return typing.get_args(candidate)[0]
    return None


def _read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """Split at "Args:" into the description and the help of each parameter."""
    description, _, arguments = text.partition("\nArgs:\n")
    helps = {}
    for entry in re.split(r"\n(?=\S)", textwrap.dedent(arguments).strip()):
        name, _, words = entry.partition(":")
        helps[name.strip()] = one_line(words)
    return description.strip(), helps
