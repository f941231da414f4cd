"""The report as one HTML file: nothing outside it is loaded, and it reads on a phone, on paper and in the dark."""

from functools import cache
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from hybridvit.atomic import write_text
from hybridvit.report.charts import chart
from hybridvit.report.content import Report
from hybridvit.report.pictures import photo

LARGEST_MATRIX = 25  # classes; beyond that a table of cells cannot be read, and the worst mistakes are listed instead
RELOAD_SECONDS = 60  # how often the page of a run that goes on reloads itself


def render(report: Report) -> str:
    """The page. Every text in `report`, class and file names above all, is escaped."""
    template, style = page_template("hybridvit.report", "report.html.jinja")
    return template.render(
        report=report,
        style=style,
        show_matrix=report.confusion is not None and len(report.confusion.class_names) <= LARGEST_MATRIX,
        most_mistakes=max((count for count, _, _ in report.confusion.worst(1)), default=1) if report.confusion else 1,
        slowest_ms=max((bar.median_ms for bar in report.bars), default=1.0),
        reload_seconds=RELOAD_SECONDS,
    )


@cache
def page_template(package: str, name: str) -> tuple[Template, Markup]:
    """The template `name` in `package`, which escapes every text that it is given, and the style of all pages."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": number, "photo": photo, "chart": chart}
    template = environment.from_string(files(package).joinpath(name).read_text(encoding="utf-8"))
    return template, Markup(files("hybridvit.report").joinpath("report.css").read_text(encoding="utf-8"))


def write_report(report: Report, path: Path) -> None:
    """Write the page to `path`, atomically."""
    write_text(path, render(report))


def number(value: float) -> str:
    """Readable: 4,026,232 for counts, 690.1 M for large ones, three digits for the rest."""
    if abs(value) >= 1e9:
        return f"{value / 1e9:.2f} G"
    if abs(value) >= 1e7:
        return f"{value / 1e6:.1f} M"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.3g}"
