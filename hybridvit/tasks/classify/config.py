"""The keys that a recipe of classification has besides those of all tasks. Imports no torch."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from hybridvit.errors import UsageError
from hybridvit.recipe.checks import at_least, positive, within
from hybridvit.recipe.groups import DataConfig, Source
from hybridvit.recipe.labels import LabelsRecipe

SOURCES = {
    "folder": Source(
        meaning="image folders", opener="hybridvit.data.folder:open_folders", needs_root=True, keys=("fold",)
    ),
    "table": Source(
        meaning="a CSV, TSV or Parquet file with a path and a label in each row",
        opener="hybridvit.data.table:open_tables",
        needs_root=True,
        keys=("image_column", "label_column", "fold"),
    ),
    "shards": Source(
        meaning="tar files with an index (`hybridvit shard`), here or behind a URL",
        opener="hybridvit.data.shards.images:open_shards",
        needs_root=True,
        keys=("shuffle_shards", "cache", "cache_gb"),
    ),
    "huggingface": Source(
        meaning="a data set of the datasets library",
        opener="hybridvit.data.huggingface:open_splits",
        needs_root=True,
        keys=("image_column", "label_column"),
    ),
    "digits": Source(
        meaning="scikit-learn's digits, written to root first", opener="hybridvit.data.digits:open_digits"
    ),
    "generated": Source(meaning="colours and noise", opener="hybridvit.data.generated:open_generated"),
    "two_marks": Source(
        meaning="two marks far apart, same or different", opener="hybridvit.data.two_marks:open_two_marks"
    ),
}
"""Where labelled images can come from.

An opener is given the recipe's `data` and the `ImageOptions` for the training and for the validation images,
and gives these two as `LabelledImages`. It raises DatasetError or UsageError where they are not to be had.
"""
_SOURCES_HELP = "; ".join(f"{name}: {source.meaning}" for name, source in SOURCES.items()) + "."


@dataclass(frozen=True, kw_only=True)
class ClassifyData(DataConfig):
    """Images: where they are, and how they are batched"""

    sources = SOURCES

    source: Literal[tuple(SOURCES)] = field(default="folder", metadata={"help": _SOURCES_HELP})  # type: ignore[valid-type]

    sampler: Literal["shuffle", "balanced"] = "shuffle"
    """shuffle: an epoch shows each image once; balanced: equally many of each class, rare ones several times."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sampler == "balanced" and self.source == "shards":
            raise UsageError(
                "Recipe key 'data.sampler' is 'balanced', but shards are read one after the other, whatever is in "
                "them. Use --class_weights balanced."
            )
        if self.train_sizes and self.source == "two_marks":
            raise UsageError(
                "Recipe key 'data.train_sizes' is set, but the marks of data.source two_marks have one size in pixels: "
                "images of other sizes would be another task. Leave it out."
            )
        if self.val_share and self.source == "shards":
            raise UsageError(
                f"Recipe key 'data.val_share' is {self.val_share}, but shards cannot be held out in part. Hold out "
                f"when they are packed: hybridvit shard FOLDER OUTPUT --val_share {self.val_share}."
            )


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """Learning from a teacher beside the labels (FastViT, supplement, Table 6)"""

    teacher: str = ""
    """A timm model such as regnety_160.deit_in1k, a model of this package, or a file it wrote; empty: no teacher."""
    teacher_weights: str = ""
    """File with the weights of a teacher given by name; empty: its published ones, fetched once."""
    kind: Literal["hard", "soft"] = "hard"
    """hard: cross-entropy with the teacher's answer; soft: divergence from its probabilities."""
    weight: float = 0.5
    """Share of the distillation loss; the rest is the loss with the labels."""
    temperature: float = 1.0
    """Of the soft kind: what both models' logits are divided by."""

    def __post_init__(self) -> None:
        within("distill.weight", self.weight, 0.0, 1.0)
        positive("distill.temperature", self.temperature)
        if self.teacher_weights and not self.teacher:
            raise UsageError("Recipe key 'distill.teacher_weights' is set, but no teacher. Name it: --distill.teacher.")
        if self.teacher and not self.weight:
            raise UsageError(
                f"Recipe key 'distill.weight' is 0, so the teacher {self.teacher} would teach nothing. Set it above 0, "
                "or leave the teacher out."
            )
        if self.teacher and self.kind == "hard" and self.temperature != 1:
            raise UsageError(
                f"Recipe key 'distill.temperature' is {self.temperature}, but hard distillation takes the teacher's "
                "most likely class at any temperature. Set distill.kind to soft, or leave the temperature out."
            )


@dataclass(frozen=True, kw_only=True)
class MesaConfig:
    """Learning from the moving average of the own weights (MESA; FasterViT, appendix I)"""

    weight: float = 0.0
    """What the divergence from the average's probabilities is multiplied with; 0 switches it off."""
    start: float = 0.25
    """Share of the training after which it begins."""
    temperature: float = 3.0
    """What both models' logits are divided by."""

    def __post_init__(self) -> None:
        at_least("mesa.weight", self.weight, 0.0, "0 switches it off")
        within("mesa.start", self.start, 0.0, 1.0)
        positive("mesa.temperature", self.temperature)


@dataclass(frozen=True, kw_only=True)
class ClassifyRecipe(LabelsRecipe):
    """The run"""

    data: ClassifyData = field(default_factory=ClassifyData)
    """Images"""
    distill: DistillConfig = field(default_factory=DistillConfig)
    """Distillation"""
    mesa: MesaConfig = field(default_factory=MesaConfig)
    """MESA"""
    class_weights: Literal["none", "balanced"] | tuple[float, ...] = "none"
    """Weight of the loss of an image by its class: balanced: the rarer, the more, 1 in the mean; or a number for each
    class, in the order of their names."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for weight in self.class_weights if isinstance(self.class_weights, tuple) else ():
            at_least("class_weights", weight, 0.0, "0 leaves a class out of the loss")
        if self.mesa.weight and not self.ema.decay:
            raise UsageError(
                f"Recipe key 'mesa.weight' is {self.mesa.weight}, but there is no moving average to learn from. Set "
                "ema.decay, for example to 0.9995, or mesa.weight to 0."
            )

    @property
    def learns_from_average(self) -> bool:
        return bool(self.mesa.weight)

    @property
    def methods(self) -> tuple[str, ...]:
        teacher = ["distillation"] if self.distill.teacher else []
        return (*teacher, *(["MESA"] if self.mesa.weight else []))

    def trial_settings(self) -> tuple[dict[str, Any], list[str]]:
        settings, changed = super().trial_settings()
        if self.distill.teacher:
            changed.append(f"changed: the teacher {self.distill.teacher} is an untrained one of debug size")
            settings["distill"] = dataclasses.replace(self.distill, teacher_weights="")
        if self.mesa.weight and self.mesa.start:
            changed.append(f"changed: MESA begins at the first step, not after {self.mesa.start:.0%} of the training")
            settings["mesa"] = dataclasses.replace(self.mesa, start=0.0)
        return settings, changed
