"""How the documentation becomes a site: `make docs`. Every warning is an error there."""

import re
import sys
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.ext.napoleon import GoogleDocstring

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

from reference_pages import write_reference  # noqa: E402  (found by the line above, as the next)

import hybridvit  # noqa: E402

write_reference(HERE / "reference")
GENERATED = {  # pages that only the site has, by the heading of the index that they belong to
    "Reference": [f"reference/{name}" for name in ("commands.md", "recipes.md", "recipe-keys.md", "api.rst")],
    "Explanation": ["reference/contributing.md"],
    "Results": ["reference/changelog.md"],
}

project = "hybridvit"
release = hybridvit.__version__
copyright = "The hybridvit authors, Apache-2.0"
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build", "_ext"]
root_doc = "index"
smartquotes = False  # it would make one dash of the two before an option
nitpicky = True  # whatever is referred to has to be there
suppress_warnings: list[str] = []

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3  # links to headings, as they are written for other readers of Markdown

default_role = "code"  # a single backtick in a docstring
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True  # as written, not as they print
maximum_signature_line_length = 88

# Signatures name types of other packages, and those that a module imports for the type checker alone have no address.
# Recipes, tasks' options, reports and type variables are described elsewhere, or of no use to programs.
OTHERS = r"(os|pathlib|collections|fractions|torch|np|numpy|PIL|jaxtyping)\..*|[A-Z]\w*"
OURS = r"hybridvit\.(data\.decode|folding\.fold|recipe\.recipe|task|report\.content)\.\w+"
nitpick_ignore_regex = [("py:class", OTHERS), ("py:class", OURS)]

html_theme = "furo"
html_title = "hybridvit"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}


def read_docstring(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Turn "Args:" and its kin into what Sphinx reads, but in fields: there "word: text" is a sentence."""
    if what not in ("attribute", "property"):
        lines[:] = GoogleDocstring(lines, what=what, name=name, obj=value).lines()


def read_signature(
    app: Sphinx, what: str, name: str, value: Any, options: Any, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """Leave out that of a dataclass: its fields are listed below it, with types and defaults."""
    return ("", None) if what == "class" and is_dataclass(value) else (signature, returned)


def join_with_dashes(app: Sphinx, page: nodes.document, name: str) -> None:
    """Between a parameter and its meaning stand two hyphens, which are left as they are where options are written."""
    for text in list(page.findall(nodes.Text)):
        if text == " -- ":
            text.parent.replace(text, nodes.Text(" – "))


def add_contents(app: Sphinx, name: str, source: list[str]) -> None:
    """Make the tree of pages from the links of the index: those below a heading are listed under it, in their order.

    A page that the index does not link is in no tree, which is a warning, and so an error.
    """
    if name != root_doc:
        return
    beginning, *sections = re.split(r"^(?=## )", source[0], flags=re.MULTILINE)
    contents = [beginning]
    for section in sections:
        title = section.partition("\n")[0].removeprefix("## ")
        generated = GENERATED.get(title, [])
        links = ", ".join(f"[]({page})" for page in generated)
        pages = "\n".join(dict.fromkeys([*re.findall(r"\]\(([\w/-]+\.md)\)", section), *generated]))
        contents += [section.rstrip(), f"On this site: {links}." if links else ""]
        contents.append(f":::{{toctree}}\n:hidden:\n:caption: {title}\n\n{pages}\n:::\n")
    source[0] = "\n\n".join(contents)


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", add_contents)
    app.connect("doctree-resolved", join_with_dashes)
    app.connect("autodoc-process-signature", read_signature)
    app.connect("autodoc-process-docstring", read_docstring)
