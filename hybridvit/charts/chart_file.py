"""The file that a chart becomes: a page to explore, or a picture to print."""

from importlib.util import find_spec
from pathlib import Path

from hybridvit.atomic import check_writable
from hybridvit.charts.panels import Page
from hybridvit.errors import UsageError

PACKAGES = {".html": "plotly", ".png": "matplotlib"}


def check_chart_path(path: Path) -> None:
    """Raise UsageError unless a chart can be written there: worth asking before a long measurement.

    The suffix says which kind, .html or .png; the folder must exist, and the package that draws must be installed.
    """
    suffix = path.suffix.lower()
    if suffix not in PACKAGES:
        raise UsageError(
            f"The chart is to be written to '{path}', but a chart is a page (.html) or a picture (.png). "
            f"Use {path.with_suffix('.html') if path.name else 'chart.html'}."
        )
    if find_spec(PACKAGES[suffix]) is None:
        raise UsageError(
            f"A {suffix} chart is drawn by {PACKAGES[suffix]}, which is not installed. "
            'Run: pip install "hybridvit[charts]".'
        )
    check_writable(path)


def write_page(page: Page, path: Path) -> None:
    """Write the charts to `path`, atomically, in the form that its suffix says. Raises what check_chart_path raises."""
    check_chart_path(path)
    if path.suffix.lower() == ".html":
        from hybridvit.charts.panels_html import write
    else:
        from hybridvit.charts.panels_png import write
    write(page, path)
