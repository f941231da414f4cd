"""Ranges of a recipe's numbers, with errors that name the key."""

from hybridvit.errors import UsageError


def at_least(key: str, value: float, minimum: float, reason: str) -> None:
    """Raise UsageError unless `value` is at least `minimum`."""
    if not value >= minimum:
        raise UsageError(f"Recipe key '{key}' is {value}, but it must be at least {minimum}: {reason}.")


def positive(key: str, value: float) -> None:
    """Raise UsageError unless `value` is finite and above 0."""
    if not 0 < value < float("inf"):
        raise UsageError(f"Recipe key '{key}' is {value}, but it must be a finite number above 0.")


def within(key: str, value: float, minimum: float, maximum: float) -> None:
    """Raise UsageError unless `value` lies between the two, both included."""
    if not minimum <= value <= maximum:
        raise UsageError(f"Recipe key '{key}' is {value}, but it must lie between {minimum} and {maximum}.")
