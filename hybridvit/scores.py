"""What an answer is to a user, and what answers are worth on a set of samples. Importing it needs no torch."""

import heapq
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

    from hybridvit.report.content import Confusion, Curve, Table


Kind: TypeAlias = "type | list[Kind] | Columns"
"""Of JSON values: str, int, float; [kind] for a list of any length; an object by the kinds of its names."""
Columns: TypeAlias = "Mapping[str, Kind]"


PICTURES_BESIDE = ("labels.png", "views.png")
"""Names of files of an answer that end as the drawn picture beside them does."""


class Result(ABC):
    """The answer to one picture, in its pixels and units. Needs NumPy and Pillow only."""

    lies_in_picture: ClassVar[bool] = True
    """Whether the answer is to be seen in the picture, so that pages show it drawn."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """JSON values."""

    def arrays(self) -> dict[str, np.ndarray]:
        """The answer by name, for programs that take tensors, with the same shapes for every picture.

        Numbers and strings of bytes (arrays of objects); if nothing else is said its JSON as one string, "answer".
        """
        return {"answer": np.array(json.dumps(self.to_dict(), ensure_ascii=False).encode(), object)}

    @property
    @abstractmethod
    def columns(self) -> Columns:
        """What `to_dict` has of any picture that the same file answers to, by name, though one picture may lack some.

        It makes tables that are written in parts one table.
        """

    @abstractmethod
    def draw(self, picture: "Image") -> "Image":
        """A copy of the upright picture with the answer on it."""

    @property
    def colours(self) -> Mapping[str, tuple[int, int, int]]:
        """The red, green and blue that `draw` gives each class of the answer, where it does."""
        return {}

    @abstractmethod
    def agrees(self, other: "Result") -> bool:
        """Whether both are the same answer, as a person would say."""

    @abstractmethod
    def lines(self) -> list[str]:
        """The answer on a terminal."""

    def files(self) -> dict[str, bytes]:
        """What of it is a file of its own, by name; of a picture, one of PICTURES_BESIDE."""
        return {}


@dataclass(frozen=True, kw_only=True)
class Example:
    """A sample that is worth looking at, in a report."""

    group: str  # title of those that it stands among
    order: float  # in its group; the highest come first
    sample: int
    result: Result
    said: str  # under the picture: the answer in a few words
    truth: str = ""  # what would have been right, if that needs saying
    note: str = ""  # a line below
    right: bool


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What a model is worth on a set of samples."""

    values: Mapping[str, float]  # by the name of the quantity; the headline, and those that this model can be judged by
    parts: "tuple[Table | Confusion | Curve, ...]" = ()  # of a report
    per_image: np.ndarray | None = None
    """Of the headline, where it is a mean over images, in the order of this process's samples; bool: right or not."""
    examples: tuple[Example, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    """More of it as JSON values, by the name of the key that `evaluate --json` gives it."""


def first_of_groups(examples: Iterable[Example], groups: Iterable[str], most: int) -> list[Example]:
    """Those to show: `most` of each group, groups in the order given."""
    members: dict[str, list[Example]] = {group: [] for group in groups}
    for example in examples:
        members[example.group].append(example)
    return [each for group in members.values() for each in heapq.nlargest(most, group, key=lambda each: each.order)]
