"""What a command leaves: files that are asked for, checked before its long work, and its exit code."""

from pathlib import Path

from hybridvit.atomic import check_writable
from hybridvit.errors import UsageError
from hybridvit.stderr import remark

INTERRUPTED = 130


def ended(*, is_complete: bool) -> int:
    """The exit code of a measurement; of one that Ctrl-C ended early, that is said too."""
    if is_complete:
        return 0
    remark("Interrupted. The rounds until then are kept.")
    return INTERRUPTED


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
