"""Labels and names of large sets, made when asked for."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hybridvit.data.scan import check_known
from hybridvit.errors import DatasetError


class Column(Sequence[int]):
    """An array as a sequence of Python integers."""

    def __init__(self, values: np.ndarray) -> None:
        self._array = values

    @property
    def values(self) -> np.ndarray:
        """All of them."""
        return self._array

    def __getitem__(self, place: Any) -> Any:
        return self.values[place].tolist()

    def __len__(self) -> int:
        return len(self.values)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.values, dtype=dtype)


class Names(Sequence[str]):
    """`length` names, of which `name` gives each by its number; it is sent to other processes."""

    def __init__(self, length: int, name: Callable[[int], str]) -> None:
        self._numbers, self._name = range(length), name

    def __getitem__(self, place: Any) -> Any:
        found = self._numbers[place]
        return self._name(found) if isinstance(found, int) else [self._name(each) for each in found]

    def __len__(self) -> int:
        return len(self._numbers)


def matched(labels: Sequence[int], names: Sequence[str], class_names: Sequence[str], source: str) -> Column:
    """Labels of classes `names` as labels of the same classes in `class_names`.

    Raises `DatasetError` for a class that is not there, and for a label without a name.
    """
    known = {name: label for label, name in enumerate(class_names)}
    check_known(names, class_names, source=source, otherwise="leave these classes out")
    values = np.asarray(labels)
    if len(values) and not 0 <= values.min() <= values.max() < len(names):
        raise DatasetError(
            f"{source} has labels from {values.min()} to {values.max()}, but names {len(names)} classes, 0 to "
            f"{len(names) - 1}. Correct its labels or its class names."
        )
    return Column(np.array([known[name] for name in names], np.int32)[values])
