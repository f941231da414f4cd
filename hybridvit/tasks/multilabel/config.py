"""The keys that a recipe of several labels per image has besides those of all tasks. Imports no torch."""

from dataclasses import dataclass, field
from typing import Literal

from hybridvit.errors import UsageError
from hybridvit.recipe.checks import at_least
from hybridvit.recipe.groups import DataConfig, Source
from hybridvit.recipe.labels import LabelsRecipe

SEPARATORS = (";", "|", ",")  # that tables have between labels; the first unless another is named

SOURCES = {
    "table": Source(
        meaning="a CSV, TSV or Parquet file with a path in each row, and its labels or a 0 or 1 for each class",
        opener="hybridvit.tasks.multilabel.data:open_tables",
        needs_root=True,
        keys=("image_column", "label_column", "label_separator", "label_columns", "fold"),
    ),
    "several_digits": Source(
        meaning="up to four of scikit-learn's digits in a picture, written to root first",
        opener="hybridvit.tasks.multilabel.digits:open_several_digits",
    ),
    "generated": Source(meaning="colours and noise", opener="hybridvit.tasks.multilabel.generated:open_generated"),
}
"""Where images with their labels can come from; openers are as those of a classification."""
_SOURCES_HELP = "; ".join(f"{name}: {source.meaning}" for name, source in SOURCES.items()) + "."


@dataclass(frozen=True, kw_only=True)
class MultilabelData(DataConfig):
    """Images: where they are, and how they are batched"""

    sources = SOURCES

    source: Literal[tuple(SOURCES)] = field(default="table", metadata={"help": _SOURCES_HELP})  # type: ignore[valid-type]

    label_separator: str = SEPARATORS[0]
    """What stands between the labels in a cell of label_column. An empty cell is an image without a label."""
    label_columns: tuple[str, ...] = ()
    """The columns that are classes, with 1 where an image is of the class and 0 where not. Left out where the table has
    a column of labels, or no other columns of 0 and 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.label_separator:
            raise UsageError(
                "Recipe key 'data.label_separator' is empty, but something stands between two labels. Write ';' or '|'."
            )
        for key in ("label_column", "label_separator"):
            if self.label_columns and getattr(self, key) != getattr(type(self), key):
                raise UsageError(
                    f"Recipe key 'data.{key}' is for a column that names all labels, and data.label_columns names a "
                    "column for each class. Leave one of them out."
                )


@dataclass(frozen=True, kw_only=True)
class MultilabelRecipe(LabelsRecipe):
    """The run"""

    data: MultilabelData = field(default_factory=MultilabelData)
    """Images"""
    pos_weight: Literal["none", "balanced"] | tuple[float, ...] = "none"
    """Weight of the images that have a label in the loss of that label: balanced: those without over those with it; or
    a number for each class, in the order of the classes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for weight in self.pos_weight if isinstance(self.pos_weight, tuple) else ():
            at_least("pos_weight", weight, 0.0, "0 leaves the images that have the label out of its loss")
