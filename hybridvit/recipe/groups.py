"""The groups of keys of a recipe: every setting, its unit and its range. Imports no torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any, ClassVar, Literal

from hybridvit.errors import UsageError
from hybridvit.recipe.checks import at_least, positive, within


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where samples can come from: a row of the table of sources that stands beside the recipe of a task."""

    meaning: str  # in the help of data.source
    opener: str  # "module:function", imported when a run opens its samples
    needs_root: bool = False  # whether data.root must say where they are
    keys: tuple[str, ...] = ()  # of `data`, that no other source has a use for

    def load(self) -> Callable[..., Any]:
        """The opener."""
        module, _, function = self.opener.partition(":")
        return getattr(import_module(module), function)


OF_SOURCES = ("shuffle_shards", "cache", "cache_gb", "image_column", "label_column", "fold")
"""The keys below that are for some sources alone; a source names those that it takes."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Images: where they are, and how they are batched"""

    sources: ClassVar[Mapping[str, Source]] = {}
    """By the name that `source` takes. Those of a task stand in its own class of this kind."""

    root: str = ""
    """Folder that holds the split folders, each with one folder per class; of shards also a URL (https://, s3://); of
    tables the folder they are in, or one table; of a Hugging Face data set its name on the hub, or a folder."""
    train: str = "train"
    """Folder of the training images, inside root; the table of them; of a Hugging Face data set, the split."""
    val: str = "val"
    """Folder of the validation images, inside root; the table of them; of a Hugging Face data set, the split."""
    val_share: float = 0.0
    """Share of the training images to hold out and validate on, in place of those in val; 0 holds out none."""
    fold: str = ""
    """i/k: hold out part i of k of the training images and validate on it, in place of those in val. The name of a file
    decides in which part it is, whatever others come or go."""
    source: str = "folder"
    """Where the images come from."""
    shuffle_shards: int = 16
    """For shards: how many are shuffled together; their samples are mixed, those of others are not."""
    cache: str = "~/.cache/hybridvit/shards"
    """For shards behind a URL: folder that they are kept in, for all runs of the machine."""
    cache_gb: float = 50.0
    """For shards behind a URL: size of the cache; the least recently used ones make room for new ones."""
    image_column: str = ""
    """For a table: the column of the paths; for a Hugging Face data set that of the images. Left out where the name or
    the type tells."""
    label_column: str = ""
    """For a table or a Hugging Face data set: the column of the classes. Left out where the name or the type tells."""
    image_size: int = 256
    """Side of the square training and validation images, in pixels."""
    train_sizes: tuple[int, ...] = ()
    """Sides of the training images in pixels, of which each step takes one, drawn by (seed, step), in place of
    image_size: the model sees objects in more sizes."""
    crop_fraction: float = 0.9
    """Part of the resized image that validation cuts out of its centre."""
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bicubic"
    """Resampling filter of the resize."""
    total_batch: int = 1024
    """Images per optimizer step over all devices; each device's share is derived from it."""
    micro_batch: int | Literal["auto"] = 0
    """Most images one device holds at once; a larger share is accumulated. 0: the whole share at once; auto: the
    largest that fits, found before the first step."""
    workers: int = 4
    """Loader processes per device; 0 loads in the training process."""
    on_bad_image: Literal["error", "skip"] = "error"
    """error: a file that cannot be decoded ends the run; skip: another image takes its place, up to 1 %."""
    exif_orientation: bool = True
    """Turn photos upright as their EXIF block says; false leaves them as the sensor stored them, which reproduces
    accuracies published without it. Kept in the checkpoint, and followed by evaluate and predict."""
    levels: tuple[float, ...] = ()
    """Black and white of grey pictures of more than 8 bits, such as [0, 4095] for 12 bits stored in 16; left
    out: their whole range. Kept in the checkpoint, and followed by every later command."""
    reduced_decode: bool = True
    """Decode a training JPEG at 1/2, 1/4 or 1/8 where its random crop is larger than image_size by that much: the same
    crop, of almost the same pixels, faster. Validation always decodes whole."""

    def __post_init__(self) -> None:
        within("data.val_share", self.val_share, 0.0, 0.5)
        self._check_fold()
        if self.train == self.val and not (self.val_share or self.fold):
            raise UsageError(
                f"Recipe keys 'data.train' and 'data.val' are both '{self.train}', but accuracy on the images trained "
                "on tells nothing. Name another folder, or hold out a part with --data.val_share 0.2."
            )
        if self.levels and (len(self.levels) != 2 or self.levels[0] == self.levels[1]):
            raise UsageError(
                f"Recipe key 'data.levels' is {', '.join(f'{level:g}' for level in self.levels)}, but it must be the "
                "black and the white level, two numbers that differ. Write --data.levels '[0,4095]'."
            )
        self._check_keys_of_sources()
        at_least("data.shuffle_shards", self.shuffle_shards, 1, "a sample is in some shard")
        positive("data.cache_gb", self.cache_gb)
        at_least("data.image_size", self.image_size, 32, "the models halve the image five times")
        for side in self.train_sizes:
            at_least("data.train_sizes", side, 32, "the models halve the image five times")
        within("data.crop_fraction", self.crop_fraction, 0.1, 1.0)
        at_least("data.total_batch", self.total_batch, 2, "BatchNorm needs two images to have statistics")
        if isinstance(self.micro_batch, int):
            at_least("data.micro_batch", self.micro_batch, 0, "0 stands for the whole share of a device")
        at_least("data.workers", self.workers, 0, "0 stands for loading in the training process")
        if self.micro_batch == 1:
            raise UsageError(
                "Recipe key 'data.micro_batch' is 1, but BatchNorm has no statistics over one image. Use 2 or more."
            )

    @property
    def needs_root(self) -> bool:
        """Whether `root` must say where the images are."""
        return self.source in self.sources and self.sources[self.source].needs_root

    def _check_fold(self) -> None:
        part, _, count = self.fold.partition("/")
        if self.fold and not (part.isdecimal() and count.isdecimal() and 1 <= int(part) <= int(count) >= 2):
            raise UsageError(
                f"Recipe key 'data.fold' is '{self.fold}', but it must be i/k, part i of k: 1/5, 2/5, 3/5, 4/5 and 5/5 "
                "in five runs."
            )
        if self.fold and self.val_share:
            raise UsageError(
                f"Recipe keys 'data.fold' ({self.fold}) and 'data.val_share' ({self.val_share}) both hold images out. "
                "Leave one of them out."
            )

    def _check_keys_of_sources(self) -> None:
        """Refuse keys that the chosen source would ignore; generated images may stand in for any source in dry runs."""
        defaults = {each.name: each.default for each in fields(self)}
        own = self.sources[self.source].keys if self.source in self.sources else ()
        for key in dict.fromkeys((*OF_SOURCES, *(key for source in self.sources.values() for key in source.keys))):
            if key in own or self.source == "generated" or getattr(self, key) == defaults[key]:
                continue
            takers = [name for name, source in self.sources.items() if key in source.keys]
            if not takers:
                raise UsageError(
                    f"Recipe key 'data.{key}' is {getattr(self, key)!r}, but no data.source of this task has a use for "
                    "it. Leave it out."
                )
            raise UsageError(
                f"Recipe key 'data.{key}' is for data.source {' and '.join(takers)}, but data.source is "
                f"'{self.source}'. Leave one of them out."
            )


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimizer"""

    name: str = "adamw"
    """Any optimizer timm knows: adamw, lamb, sgd, ..."""
    lr: float = 1e-3
    """Peak learning rate for the total batch; it is not scaled by anything."""
    weight_decay: float = 0.05
    """Weight decay of everything but biases and norms."""
    momentum: float | None = None
    """Momentum, or the first beta of Adam and its kind; left out: the optimizer's own, mostly 0.9."""
    clip_norm: float = 0.0
    """Largest norm of the gradient over all weights; 0 clips nothing."""
    layer_decay: float = 1.0
    """Learning rate of a layer over that of the layer after it; 1 gives all the same. 0.65 to 0.9 suit fine-tuning."""
    backbone_lr: float = 1.0
    """Of models with a head of their own: learning rate of the backbone over that of the head."""

    def __post_init__(self) -> None:
        positive("optim.lr", self.lr)
        within("optim.weight_decay", self.weight_decay, 0.0, 1.0)
        if self.momentum is not None and not 0 <= self.momentum < 1:
            raise UsageError(f"Recipe key 'optim.momentum' is {self.momentum}, but it must be at least 0 and below 1.")
        at_least("optim.clip_norm", self.clip_norm, 0.0, "0 stands for no clipping")
        within("optim.layer_decay", self.layer_decay, 0.01, 1.0)
        positive("optim.backbone_lr", self.backbone_lr)
        if self.layer_decay < 1 and self.backbone_lr != 1:
            raise UsageError(
                f"Recipe keys 'optim.layer_decay' ({self.layer_decay}) and 'optim.backbone_lr' ({self.backbone_lr}) "
                "both say how fast the backbone learns. Leave one of them out."
            )


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Length of the training, and the learning rate over it"""

    epochs: int = 300
    """Passes over the training images, warm-up included, cool-down not."""
    steps: int = 0
    """Optimizer steps of the schedule, in place of epochs; 0: epochs tell."""
    warmup_epochs: float = 5
    """Epochs over which the learning rate rises linearly from warmup_lr to the peak; none where steps is set."""
    warmup_steps: int = 0
    """Optimizer steps of the warm-up, in place of warmup_epochs."""
    cooldown_epochs: int = 0
    """Epochs at min_lr after the schedule."""
    kind: Literal["cosine", "constant", "poly", "drops"] = "cosine"
    """Learning rate after the warm-up: poly: the power of the share of the schedule that is left; drops: a tenth from
    each epoch of drop_epochs on."""
    power: float = 0.9
    """Of kind poly; 1 is a straight line."""
    drop_epochs: tuple[float, ...] = ()
    """Of kind drops: the epochs at whose ends the learning rate falls to a tenth, such as [8, 11]."""
    warmup_lr: float = 1e-6
    """Learning rate of the first step."""
    min_lr: float = 1e-5
    """Learning rate at the end of the cosine, or of poly."""

    def __post_init__(self) -> None:
        at_least("schedule.epochs", self.epochs, 1, "there must be something to train")
        at_least("schedule.steps", self.steps, 0, "0 stands for as many as the epochs have")
        if self.steps and self.epochs != type(self).epochs:
            raise UsageError(
                f"Recipe keys 'schedule.steps' ({self.steps}) and 'schedule.epochs' ({self.epochs}) both say how long "
                "to train. Leave one of them out."
            )
        if self.steps and self.cooldown_epochs:
            raise UsageError(
                f"Recipe key 'schedule.cooldown_epochs' is {self.cooldown_epochs}, but the schedule is one of "
                f"{self.steps} steps. Leave it out, or give epochs."
            )
        at_least("schedule.warmup_steps", self.warmup_steps, 0, "0 stands for warmup_epochs")
        positive("schedule.power", self.power)
        if (self.kind == "drops") != bool(self.drop_epochs) or list(self.drop_epochs) != sorted(self.drop_epochs):
            raise UsageError(
                f"Recipe keys 'schedule.kind' ({self.kind}) and 'schedule.drop_epochs' ({list(self.drop_epochs)}) do "
                "not fit: kind drops needs epochs in ascending order, such as [8, 11], and no other kind has a use for "
                "them."
            )
        at_least("schedule.warmup_epochs", self.warmup_epochs, 0.0, "0 stands for none")
        at_least("schedule.cooldown_epochs", self.cooldown_epochs, 0, "0 stands for none")
        at_least("schedule.warmup_lr", self.warmup_lr, 0.0, "a learning rate is not negative")
        at_least("schedule.min_lr", self.min_lr, 0.0, "a learning rate is not negative")

    def length(self, steps_per_epoch: int) -> int:
        """Optimizer steps of the schedule, warm-up included, cool-down not."""
        return self.steps or self.epochs * steps_per_epoch

    def warmup(self, steps_per_epoch: int) -> int:
        """Optimizer steps of the warm-up."""
        if self.warmup_steps or self.steps:
            return self.warmup_steps
        return round(self.warmup_epochs * steps_per_epoch)


@dataclass(frozen=True, kw_only=True)
class EmaConfig:
    """Moving average of the weights, evaluated beside the raw ones"""

    decay: float = 0.9995
    """Weight of the past in the average after each step; 0 keeps no average."""
    warmup: bool = True
    """Let the decay grow from 0 in the first steps, so that the average forgets the random start."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.decay < 1.0:
            raise UsageError(
                f"Recipe key 'ema.decay' is {self.decay}, but it must be at least 0 and below 1. "
                "0.9995 suits 300 epochs, 0.99 short runs, 0 keeps no average."
            )
