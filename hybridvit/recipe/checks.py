"""Ranges of a recipe's numbers, with errors that name the key."""

from hybridvit.errors import UsageError


def at_least(key: str, value: float, minimum: float, reason: str) -> None:
    if not value >= minimum:
        raise UsageError(f"Recipe key '{key}' is {value}, but it must be at least {minimum}: {reason}.")


def positive(key: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise UsageError(f"Recipe key '{key}' is {value}, but it must be a finite number above 0.")


def within(key: str, value: float, minimum: float, maximum: float) -> None:
    if not minimum <= value <= maximum:
        raise UsageError(f"Recipe key '{key}' is {value}, but it must lie between {minimum} and {maximum}.")
