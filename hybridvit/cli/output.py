"""The files that a command is asked to write, checked before its long work."""

from pathlib import Path

from hybridvit.atomic import check_writable
from hybridvit.errors import UsageError


def check_outputs(*files: Path | None, chart: Path | None = None) -> None:
    """Raise UsageError or DiskFull for a file, or a chart, that could not be written; None is asked for by nobody.

    Two of them cannot be the same file.
    """
    asked = [path for path in (*files, chart) if path is not None]
    for index, path in enumerate(asked):
        if any(path.resolve() == other.resolve() for other in asked[:index]):
            raise UsageError(f"{path} is asked for twice, but a file holds one of them. Give each a name of its own.")
    for file in files:
        if file is not None:
            check_writable(file)
    if chart is not None:
        from hybridvit.charts.chart_file import check_chart_path

        check_chart_path(chart)
