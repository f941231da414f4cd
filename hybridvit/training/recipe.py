"""A training run as one value: every setting, its unit and its range. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from hybridvit.data.augment_config import AugmentConfig
from hybridvit.errors import UsageError

ModelOption = bool | int | float | str | tuple[int, ...] | tuple[str, ...]

TASK_OPTIONS = ("num_classes", "pretrained", "features_only", "out_indices", "folded")
PRECISIONS = ("32-true", "bf16-mixed")


def _at_least(key: str, value: float, minimum: float, reason: str) -> None:
    if not value >= minimum:
        raise UsageError(f"Recipe key '{key}' is {value}, but it must be at least {minimum}: {reason}.")


def _positive(key: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise UsageError(f"Recipe key '{key}' is {value}, but it must be a finite number above 0.")


def _within(key: str, value: float, minimum: float, maximum: float) -> None:
    if not minimum <= value <= maximum:
        raise UsageError(f"Recipe key '{key}' is {value}, but it must lie between {minimum} and {maximum}.")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Images: where they are, and how they are batched"""

    root: str = ""
    """Folder that holds the split folders, each with one folder per class."""
    train: str = "train"
    """Folder of the training images, inside root."""
    val: str = "val"
    """Folder of the validation images, inside root."""
    val_share: float = 0.0
    """Share of the training images to hold out and validate on, in place of those in val; 0 holds out none."""
    source: Literal["folder", "digits", "generated", "two_marks"] = "folder"
    """folder: image folders; digits: scikit-learn's digits, written to root first; generated: colours and noise;
    two_marks: two marks far apart, same or different."""
    image_size: int = 256
    """Side of the square training and validation images, in pixels."""
    crop_fraction: float = 0.9
    """Part of the resized image that validation cuts out of its centre."""
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bicubic"
    """Resampling filter of the resize."""
    total_batch: int = 1024
    """Images per optimizer step over all devices; each device's share is derived from it."""
    micro_batch: int = 0
    """Most images one device holds at once; a larger share is accumulated. 0: the whole share at once."""
    workers: int = 4
    """Loader processes per device; 0 loads in the training process."""
    on_bad_image: Literal["error", "skip"] = "error"
    """error: a file that cannot be decoded ends the run; skip: another image takes its place, up to 1 %."""

    def __post_init__(self) -> None:
        _within("data.val_share", self.val_share, 0.0, 0.5)
        if self.train == self.val and not self.val_share:
            raise UsageError(
                f"Recipe keys 'data.train' and 'data.val' are both '{self.train}', but accuracy on the images trained "
                "on tells nothing. Name another folder, or hold out a part with --data.val_share 0.2."
            )
        _at_least("data.image_size", self.image_size, 32, "the models halve the image five times")
        _within("data.crop_fraction", self.crop_fraction, 0.1, 1.0)
        _at_least("data.total_batch", self.total_batch, 2, "BatchNorm needs two images to have statistics")
        _at_least("data.micro_batch", self.micro_batch, 0, "0 stands for the whole share of a device")
        _at_least("data.workers", self.workers, 0, "0 stands for loading in the training process")
        if self.micro_batch == 1:
            raise UsageError(
                "Recipe key 'data.micro_batch' is 1, but BatchNorm has no statistics over one image. Use 2 or more."
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
    momentum: float = 0.9
    """Momentum, for the optimizers that have one; Adam's first beta."""
    clip_norm: float = 0.0
    """Largest norm of the gradient over all weights; 0 clips nothing."""

    def __post_init__(self) -> None:
        _positive("optim.lr", self.lr)
        _within("optim.weight_decay", self.weight_decay, 0.0, 1.0)
        _within("optim.momentum", self.momentum, 0.0, 1.0)
        _at_least("optim.clip_norm", self.clip_norm, 0.0, "0 stands for no clipping")


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Length of the training, and the learning rate over it"""

    epochs: int = 300
    """Passes over the training images, warm-up included, cool-down not."""
    warmup_epochs: float = 5
    """Epochs over which the learning rate rises linearly from warmup_lr to the peak."""
    cooldown_epochs: int = 0
    """Epochs at min_lr after the schedule."""
    kind: Literal["cosine", "constant"] = "cosine"
    """Learning rate after the warm-up."""
    warmup_lr: float = 1e-6
    """Learning rate of the first step."""
    min_lr: float = 1e-5
    """Learning rate at the end of the cosine."""

    def __post_init__(self) -> None:
        _at_least("schedule.epochs", self.epochs, 1, "there must be something to train")
        _within("schedule.warmup_epochs", self.warmup_epochs, 0, self.epochs)
        _at_least("schedule.cooldown_epochs", self.cooldown_epochs, 0, "0 stands for none")
        _at_least("schedule.warmup_lr", self.warmup_lr, 0.0, "a learning rate is not negative")
        _at_least("schedule.min_lr", self.min_lr, 0.0, "a learning rate is not negative")


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


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The run"""

    model: str
    """Name of the architecture; `hybridvit list` shows all."""
    model_options: Mapping[str, ModelOption] = field(default_factory=dict)
    """Options for create_model, such as {drop_path_rate: 0.1}."""
    pretrained: bool | str = False
    """true: the model's default weights; or a tag such as apple_dist_in1k; or a path."""
    data: DataConfig = DataConfig()
    """Images"""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Augmentation"""
    optim: OptimConfig = OptimConfig()
    """Optimizer"""
    schedule: ScheduleConfig = ScheduleConfig()
    """Schedule"""
    ema: EmaConfig = EmaConfig()
    """Moving average"""
    seed: int = 0
    """Seed of everything random: initial weights, order, augmentation, drop-path."""
    output: str = "runs/train"
    """Folder of the run; an earlier run there is moved aside unless it is resumed."""
    validate_every: float = 1.0
    """Epochs between validations; 0.25 validates four times per epoch."""
    save_every: float = 1.0
    """Epochs between checkpoints; a run that is killed loses at most this much."""
    keep: int = 2
    """Checkpoints to keep, newest first."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Kind of device to train on."""
    devices: int | Literal["auto"] = "auto"
    """Devices per node; auto takes all GPUs, or one CPU process."""
    num_nodes: int = 1
    """Machines that train together."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """32-true: all in 32 bits; bf16-mixed: products in 16 bits, weights in 32."""
    channels_last: bool | Literal["auto"] = "auto"
    """Memory layout of images and kernels; auto takes the faster one of the device."""
    dry_run: bool = False
    """Debug size, generated images, 2 steps, one validation, one save, one resume; writes nothing that stays."""

    def __post_init__(self) -> None:
        if not self.model:
            raise UsageError("Recipe key 'model' is empty, but a run needs one. `hybridvit list` shows all models.")
        taken = [option for option in self.model_options if option in TASK_OPTIONS]
        if taken:
            raise UsageError(
                f"Recipe key 'model_options' sets {taken[0]}, but the task decides that from the images and "
                "'pretrained'. Leave it out."
            )
        _at_least("seed", self.seed, 0, "random generators take no negative seed")
        _positive("validate_every", self.validate_every)
        _positive("save_every", self.save_every)
        _at_least("keep", self.keep, 1, "the newest checkpoint must stay")
        _at_least("num_nodes", self.num_nodes, 1, "there must be a machine")
        if isinstance(self.devices, int):
            _at_least("devices", self.devices, 1, "there must be a device")
        if self.precision not in PRECISIONS:
            raise UsageError(
                f"Recipe key 'precision' is '{self.precision}', but the loop trains in {' or '.join(PRECISIONS)}."
            )
        if self.data.source == "folder" and not self.data.root and not self.dry_run:
            raise UsageError(
                "Recipe key 'data.root' is empty, but the images must come from somewhere. Give the folder that holds "
                f"'{self.data.train}/' and '{self.data.val}/': --data.root FOLDER."
            )
