"""How help looks: as wide as the terminal allows, types and defaults in few words."""

import argparse
import re
import shutil
import textwrap

import jsonargparse

WIDEST = 110
HIDDEN = ("config", "print_config")  # said in the text above, or of no use here


class HelpFormatter(jsonargparse.DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of examples; shortens "(type: int, default: 5)" to "(int, default 5)"."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=help_width(), max_help_position=30)

    def add_argument(self, action: argparse.Action) -> None:
        """Leave out what a reader does not need: options that take whole groups of keys from a file."""
        if action.dest not in HIDDEN and action.help != "Path to a configuration file.":
            super().add_argument(action)

    def _expand_help(self, action: argparse.Action) -> str:
        text = super()._expand_help(action)
        if action.nargs == 0:
            return text.removesuffix(" (default: False)")
        text = re.sub(r"\s*\((required, )?type: str\)$|\s*\(required\)$", "", text)
        text = re.sub(r"\(type: Literal\[[^\]]*\](, |\))", lambda found: "(" if found[1] == ", " else "", text)
        text = re.sub(r"\(type: Union\[(\w+), Literal\['(\w+)'\]\]", r"(\1 or \2", text)
        text = re.sub(r"\(type: ", "(", text)
        text = re.sub(r"( \| null)?, default: null\)$", ")", text)
        return re.sub(r"default: (.*)\)$", r"default \1)", text).replace("(str)", "").replace("(str, ", "(").rstrip()


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
