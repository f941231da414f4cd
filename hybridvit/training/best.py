"""The best validation of a run: what it is worth, and whose weights it keeps."""

from collections.abc import Sequence

from hybridvit.quantity import Quantity
from hybridvit.training.observe import Best, Row


def better_of(best: Best | None, row: Row, headline: Quantity) -> Best:
    """`best`, or the validation of `row` if that is better. A value that is no number is worse than any."""
    for key, weights in ((headline.name, "raw"), (f"ema_{headline.name}", "averaged")):
        if key in row and (best is None or best.value != best.value or headline.better(row[key], best.value)):
            best = Best(step=int(row["step"]), epoch=row["epoch"], weights=weights, value=row[key])
    assert best is not None
    return best


def row_of(best: Best, history: Sequence[Row]) -> Row:
    """All numbers of the best validation."""
    return next(row for row in history if row["step"] == best.step)


def validations_since(best: Best, history: Sequence[Row]) -> int:
    """How many validations came after it."""
    return sum(row["step"] > best.step for row in history)
