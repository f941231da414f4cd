"""Values as their type annotations want them, and annotations in words for a value of the wrong type."""

import functools
import typing
from argparse import ArgumentError
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from hybridvit.errors import UsageError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def converted(value: Any, annotation: Any, *, name: str, fix: str) -> Any:
    """`value`, as text or as YAML reads it, converted to the type `annotation`.

    Raises UsageError "NAME is 'VALUE', but it must be ... FIX" if that is impossible.
    """
    if annotation in (str, bool) and type(value) is annotation:
        return value  # without the parser, whose import takes a tenth of what a command needs to start
    try:
        if value is None and type(None) not in typing.get_args(annotation):
            raise TypeError  # the parser lets None pass for any type
        return _parser_of(annotation).parse_object({"value": value}).value
    except (TypeError, ArgumentError) as error:
        raise UsageError(f"{name} is '{as_text(value)}', but it must be {in_words(annotation)}. {fix}") from error


def as_text(value: Any) -> str:
    """`value` as one would write it in YAML or on the command line, on one line."""
    import yaml

    if isinstance(value, str):
        return value
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()


@functools.cache
def _parser_of(annotation: Any) -> "ArgumentParser":
    """A parser of one value, so that an error in it needs no reading: whose value was wrong is known."""
    import jsonargparse

    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=annotation)
    return parser


def in_words(annotation: Any) -> str:
    """What a value must be, as the end of the sentence "it must be ..."; None, the absence of one, is left out."""
    if annotation in _WORDS:
        return _WORDS[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return " or ".join(repr(choice) for choice in arguments)
    if origin is tuple:
        items = "words" if str in arguments else "numbers"
        return f"a list of {items}" if Ellipsis in arguments else f"a list of {len(arguments)} {items}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "a group of keys with simple values, as {key: value}"
    return " or ".join(in_words(argument) for argument in arguments if argument is not type(None))
