"""The files that a command is asked to write, checked before its long work."""

from pathlib import Path

from hybridvit.atomic import check_place


def check_outputs(*files: Path | None, chart: Path | None = None) -> None:
    """Raise UsageError for a file, or a chart, that could not be written; None is asked for by nobody."""
    for path in files:
        if path is not None:
            check_place(path)
    if chart is not None:
        from hybridvit.charts.chart_file import check_chart_path

        check_chart_path(chart)
