"""Checks of option values, for the configurations of all families. Importing it needs no torch."""

from hybridvit.errors import UsageError


def check_integer(name: str, value: object, minimum: int) -> None:
    """Raise UsageError unless `value` is a whole number from `minimum`."""
    if not is_whole(value, minimum):
        raise UsageError(f"{name} is {value!r}, but must be a whole number from {minimum}.")


def check_layer_scale(name: str, value: object) -> None:
    """Raise UsageError unless `value` is a finite number from 0, or None."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (is_number and 0 <= value < float("inf")):  # type: ignore[operator]
        raise UsageError(f"{name} is {value!r}, but must be a number from 0, like 1e-5, or None for no layer scale.")


def check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raise UsageError unless `value` is one of `allowed`."""
    if value not in allowed:
        raise UsageError(f"{name} is {value!r}, but must be one of {', '.join(map(repr, allowed))}.")


def check_flag(name: str, value: object) -> None:
    """Raise UsageError unless `value` is True or False."""
    if not isinstance(value, bool):
        raise UsageError(f"{name} is {value!r}, but must be True or False.")


def check_whole_numbers(name: str, values: object, minimum: int = 1) -> None:
    """Raise UsageError unless `values` is a tuple of whole numbers from `minimum`, at least one."""
    if not isinstance(values, tuple) or not values or not all(is_whole(value, minimum) for value in values):
        raise UsageError(f"{name} is {values!r}, but must be a tuple of whole numbers from {minimum}, one per stage.")


def check_same_stages(**values: tuple[object, ...]) -> None:
    """Raise UsageError unless all of `values` have the same number of entries."""
    stages = {name: len(entries) for name, entries in values.items()}
    if len(set(stages.values())) > 1:
        raise UsageError(f"{', '.join(stages)} must name the same number of stages, but have {stages}.")


def check_heads(width: int, num_heads: int) -> None:
    """Raise UsageError unless the heads divide the channels of their stage."""
    if width % num_heads:
        raise UsageError(
            f"A stage of {width} channels cannot have {num_heads} heads: the heads must divide the channels."
        )


def is_whole(value: object, minimum: int) -> bool:
    """Whether `value` is a whole number from `minimum`; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= minimum
