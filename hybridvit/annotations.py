"""Type annotations in words, for messages about a value of the wrong type."""

import typing
from collections.abc import Mapping
from typing import Any, Literal

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def in_words(annotation: Any) -> str:
    """What a value must be, as the end of the sentence "it must be ..."; None, the absence of one, is left out."""
    if annotation in _WORDS:
        return _WORDS[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return " or ".join(repr(choice) for choice in arguments)
    if origin is tuple:
        return "a list of numbers" if Ellipsis in arguments else f"a list of {len(arguments)} numbers"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "a group of keys with simple values, such as {drop_path_rate: 0.1}"
    return " or ".join(in_words(argument) for argument in arguments if argument is not type(None))
