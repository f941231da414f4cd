"""Columns that line up."""

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Rows of cells as text; the first `left` columns start together, the others, numbers, end together."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def pairs(rows: Sequence[tuple[str, str]], indent: str = "  ") -> str:
    """Titles and texts in two columns."""
    width = max(len(title) for title, _ in rows)
    return "\n".join(f"{indent}{title.ljust(width)}  {text}".rstrip() for title, text in rows)
