"""What a key map is: one table of names, read in both directions."""

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

LEAVES = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
"""What may follow a row's name; parameters that are no module, such as layer scales, have nothing after them."""


@dataclass(frozen=True)
class Row:
    """One module or parameter under two names. `#` stands for a number, the same ones in both."""

    ours: str
    theirs: str
    block: str = ""  # the kind of block it belongs to, where a name alone does not tell; "" for any


class Table:
    """Rows, of which the first that fits a name translates it."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = [(row, _pattern(row.ours), _pattern(row.theirs)) for row in rows]

    def to_ours(self, name: str, block: str = "") -> str | None:
        """Our name of what upstream calls `name`, or None; only by rows of that kind of block, if one is given."""
        matches = ((row, theirs.fullmatch(name)) for row, _, theirs in self._rows if _applies(row, block))
        return next((_filled(row.ours, match) for row, match in matches if match), None)

    def to_theirs(self, name: str, block: str = "") -> str | None:
        """The inverse of `to_ours`."""
        matches = ((row, ours.fullmatch(name)) for row, ours, _ in self._rows if _applies(row, block))
        return next((_filled(row.theirs, match) for row, match in matches if match), None)


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(name).replace(r"\#", r"(\d+)") + rf"(?P<leaf>(?:\.(?:{'|'.join(LEAVES)}))?)")


def _applies(row: Row, block: str) -> bool:
    return not block or row.block in ("", block)


def _filled(name: str, match: re.Match[str]) -> str:
    return name.replace("#", "{}").format(*match.groups()) + match["leaf"]


class KeyMap(ABC):
    """What one upstream calls the tensors of one family."""

    title: str  # as it stands in messages, such as "Apple's FastViT"
    forms: str  # in which a model has these names, likewise
    start: str = ""  # of files that are no more than a start of a model: how the card says so

    @abstractmethod
    def recognises(self, names: Collection[str]) -> bool:
        """Whether a file with these names is in this naming."""

    @abstractmethod
    def to_ours(self, names: Collection[str]) -> dict[str, str]:
        """Upstream's names -> ours, in their order.

        A name without a row stands for itself, for the caller's report of keys; what we compute from other tensors is
        left out. Two names may be one tensor of ours.
        """

    @abstractmethod
    def to_theirs(self, names: Collection[str]) -> dict[str, tuple[str, ...]]:
        """Our names -> all that upstream lists the tensor under, in their order; names that it lacks are left out.

        None at all for one that upstream's layout implies, if it has a certain value; see `check_left_out`.
        """

    def value(self, name: str, tensor: Tensor) -> Tensor:
        """The tensor that upstream calls `name`, laid out as ours."""
        return tensor

    def their_value(self, theirs: str, tensor: Tensor) -> Tensor:
        """The inverse of `value`: our tensor, laid out as upstream has what it calls `theirs`."""
        return tensor

    def implied(self, names: Collection[str], tensors: Mapping[str, Any]) -> dict[str, Any]:
        """What a file with upstream's `names` need not hold, beside the `tensors` in our names that it gave."""
        return {}

    def check_left_out(self, name: str, tensor: Tensor) -> None:
        """Raise CheckpointError unless upstream's layout, which has no place for our `name`, implies this value."""
        return

    def missing(self, found: Collection[str], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What a start lacks of a model with the tensors `expected`, as it is to begin with; `found` are our names."""
        return {}
