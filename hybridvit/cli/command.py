"""A command of the command line, made from a typed function: its signature is its options, its docstring its help."""

import argparse
import inspect
import re
import textwrap
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hybridvit.annotations import in_words
from hybridvit.errors import UsageError, nearest

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


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
    """Parameters without a default are positional (a list takes one or more words); keyword-only ones are options."""

    def __init__(self, name: str, function: Callable[..., int | None]) -> None:
        self.name = name
        self.function = function
        self.description, self.parameter_help = _read_docstring(inspect.getdoc(function) or "")
        self.summary = self.description.splitlines()[0]

    def help(self) -> str:
        """Usage, description with examples, arguments, options with defaults."""
        return self._parser().format_help()

    def run(self, words: Sequence[str]) -> int:
        """Parse `words` and call the function."""
        if "--help" in words or "-h" in words:
            print(self.help(), end="")
            return 0
        self._check_option_names(words)
        parser = self._parser()
        try:
            values = parser.parse_args(list(words))
        except argparse.ArgumentError as error:
            raise UsageError(self._explain(str(error))) from error
        return self.function(**vars(values)) or 0

    def _parser(self) -> "ArgumentParser":
        import jsonargparse

        from hybridvit.cli.help import HelpFormatter, reflow

        parser = jsonargparse.ArgumentParser(
            prog=f"hybridvit {self.name}",
            usage=f"hybridvit {self.name} {self._positional_words()}[--option value]...",
            description=reflow(self.description),
            exit_on_error=False,
            formatter_class=HelpFormatter,
            default_env=False,
        )
        hints = typing.get_type_hints(self.function)
        for name, parameter in inspect.signature(self.function).parameters.items():
            item = _item_type(hints[name])
            settings: dict[str, Any] = {"help": self.parameter_help[name]}
            if parameter.kind is parameter.KEYWORD_ONLY:
                settings["default"] = parameter.default
            if hints[name] is bool:
                settings["action"] = "store_true"
            elif item is not None:
                settings |= {"nargs": "+", "type": item}
            else:
                settings["type"] = hints[name]
            option = f"--{name}" if parameter.kind is parameter.KEYWORD_ONLY else name
            parser.add_argument(option, **settings)
        return parser

    def _positional_words(self) -> str:
        """How the arguments without a name are written, in capitals."""
        hints = typing.get_type_hints(self.function)
        words = ""
        for name, parameter in inspect.signature(self.function).parameters.items():
            if parameter.kind is not parameter.KEYWORD_ONLY:
                words += f"{name.upper()}{'...' if _item_type(hints[name]) else ''} "
        return words

    def _check_option_names(self, words: Sequence[str]) -> None:
        parameters = inspect.signature(self.function).parameters
        options = [name for name, each in parameters.items() if each.kind is each.KEYWORD_ONLY]
        for word in words:
            name = word.removeprefix("--").partition("=")[0]
            if word.startswith("--") and name not in options:
                known = nearest(f"--{name}", [f"--{option}" for option in options])
                raise UsageError(
                    f"`hybridvit {self.name}` has no option '--{name}'. Nearest: {known}. "
                    f"See `hybridvit {self.name} --help`."
                )

    def _explain(self, message: str) -> str:
        """One paragraph in our words from the parser's lines."""
        see = f"See `hybridvit {self.name} --help`."
        missing = re.search(r"the following arguments are required: (.*)", message)
        if missing:
            return f"`hybridvit {self.name}` also needs {missing[1].upper()}. {see}"
        wrong = re.search(r'Parser key "([^"]+)".*(?:Got value|Given value): (.*)', message, flags=re.DOTALL)
        if wrong:
            wanted = in_words(typing.get_type_hints(self.function)[wrong[1]])
            return f"--{wrong[1]} is '{wrong[2].strip()}', but it must be {wanted}. {see}"
        return f"`hybridvit {self.name}`: {' '.join(message.split())}. {see}"


def _item_type(annotation: Any) -> Any:
    """X of list[X] or list[X] | None; None for anything else."""
    for candidate in (annotation, *typing.get_args(annotation)):
        if typing.get_origin(candidate) is list:
            return typing.get_args(candidate)[0]
    return None


def _read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """Split at "Args:" into the description and the help of each parameter."""
    description, _, arguments = text.partition("\nArgs:\n")
    helps = {}
    for entry in re.split(r"\n(?=\S)", textwrap.dedent(arguments).strip()):
        name, _, words = entry.partition(":")
        helps[name.strip()] = " ".join(words.split())
    return description.strip(), helps
