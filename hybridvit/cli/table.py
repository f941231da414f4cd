"""Columns that line up, as plain text: the same in a terminal, a pipe and a log."""

from collections.abc import Collection, Sequence

UNBOUNDED = 1_000_000  # columns, so that nothing is wrapped or cut


def aligned(rows: Sequence[Sequence[str]], *, left: int = 1, left_too: Collection[int] = ()) -> str:
    """Rows of cells as text; the first `left` columns start together, the others, numbers, end together.

    `left_too` are columns among those others that start together, such as bars.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    for column in range(len(rows[0])):
        table.add_column(justify="left" if column < left or column in left_too else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))  # in plain strings, rich would read brackets as markup
    lines = Console(width=UNBOUNDED).render_lines(table, pad=False)
    return "\n".join("".join(segment.text for segment in line).rstrip() for line in lines)


def pairs(rows: Sequence[tuple[str, str]], indent: str = "  ") -> str:
    """Titles and texts in two columns."""
    return aligned([(indent + title, text) for title, text in rows], left=2)
