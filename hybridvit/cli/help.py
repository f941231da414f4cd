"""How help looks: as wide as the terminal allows, types and defaults in few words."""

import argparse
import dataclasses
import re
import shutil
import textwrap
import typing
from typing import Any, Literal

from hybridvit.annotations import as_text, in_words

WIDEST = 110


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of examples."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=help_width(), max_help_position=30)


def described(text: str, annotation: Any, default: Any = None) -> dict[str, str]:
    """What `add_argument` needs to show an argument: its help, with type and default, and any choices."""
    choices = ("true", "false") if annotation is bool else ()
    if typing.get_origin(annotation) is Literal:
        choices = typing.get_args(annotation)
    facts = [] if choices else [in_words(annotation)]
    if default not in (None, ""):
        facts.append(f"default {as_text(default)}")
    facts = [fact for fact in facts if fact != in_words(str)]
    shown = {"metavar": f"{{{','.join(choices)}}}"} if choices else {}
    return shown | {"help": f"{text} ({', '.join(facts)})" if facts else text}


def field_texts(config: type) -> dict[str, str]:
    """The docstring of each field of a dataclass, as one line for argparse."""
    import docstring_parser

    inherited = (each for each in reversed(config.__mro__) if dataclasses.is_dataclass(each))
    found = (each for part in inherited for each in docstring_parser.parse_from_object(part).params)
    return {each.arg_name: one_line(each.description or "") for each in found}


def one_line(text: str) -> str:
    """A help text without line breaks, and with what argparse would read as a format escaped."""
    return " ".join(text.split()).replace("%", "%%")


def help_width() -> int:
    """Columns to fill."""
    return min(shutil.get_terminal_size().columns, WIDEST)


def reflow(text: str) -> str:
    """Fill the paragraphs of `text` to the width; those with indented lines (examples) stay as they are."""
    paragraphs = text.strip().split("\n\n")
    return "\n\n".join(
        paragraph if re.search(r"^\s", paragraph, flags=re.MULTILINE) else textwrap.fill(paragraph, help_width())
        for paragraph in paragraphs
    )
