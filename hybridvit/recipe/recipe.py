"""A training run as one value. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from hybridvit.errors import UsageError
from hybridvit.recipe.checks import at_least, positive, within
from hybridvit.recipe.groups import DataConfig, EmaConfig, OptimConfig, ScheduleConfig

ModelOption = bool | int | float | str | tuple[int, ...] | tuple[str, ...] | None

TASK_OPTIONS = ("num_classes", "pretrained", "features_only", "out_indices", "folded", "task")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The run: the keys that the recipes of all tasks have"""

    has_head: ClassVar[bool] = False  # whether models are a backbone and a head

    task: str = "classify"
    """What is learnt."""
    model: str
    """Name of the architecture; `hybridvit list` shows all."""
    model_options: Mapping[str, ModelOption] = field(default_factory=dict)
    """Options for create_model, such as {drop_path_rate: 0.1}."""
    pretrained: bool | str = False
    """true: the model's default weights; or a tag such as apple_dist_in1k; or a path."""
    freeze: str = ""
    """What keeps its weights, and the statistics of its norms: backbone (all but the head), or stages N (the stem and
    the first N stages); empty: nothing."""
    data: DataConfig = field(default_factory=DataConfig)
    """Images"""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimizer"""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """Schedule"""
    ema: EmaConfig = field(default_factory=EmaConfig)
    """Moving average"""
    fit: bool = False
    """Fit the recipe to the images: as many in a step as there are, where total_batch is more, and a warm-up of at most
    a fifth of the epochs."""
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
    early_stop: int = 0
    """End after so many validations in a row that were not better than the best before them; 0: never."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Kind of device to train on."""
    devices: int | str = "auto"
    """Devices per node; auto: all GPUs, or one CPU process; 0,1: the GPUs of these numbers, and 1, the second alone."""
    num_nodes: int = 1
    """Machines that train together."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """How several devices share a model: ddp: each has all of it; fsdp: each keeps a part of the weights."""
    timeout_seconds: float = 120.0
    """How long the processes of a run wait for one that does not answer, before they end."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """32-true: all in 32 bits; bf16-mixed: products in 16 bits, weights in 32; 16-mixed: the same in float16 with a
    scaled loss, for GPUs without bfloat16."""
    compile: bool = False
    """Compile the model with torch.compile: faster steps after a slow first one."""
    grad_checkpointing: bool = False
    """Compute activations again in the backward pass rather than keep them: less memory, about a third more time."""
    sync_batchnorm: bool = False
    """Statistics of BatchNorm over the images of all GPUs, not of each; for small batches per GPU."""
    channels_last: bool | Literal["auto"] = "auto"
    """Memory layout of images and kernels; auto takes the faster one of the device."""
    wandb: str = ""
    """Project on Weights & Biases to log to, beside TensorBoard and CSV; empty: none."""
    dry_run: bool = False
    """Debug size from random weights, generated images, one device, 2 steps, one validation, one save, one resume;
    says what it leaves out; writes nothing that stays."""

    def __post_init__(self) -> None:
        if not self.model:
            raise UsageError("Recipe key 'model' is empty, but a run needs one. `hybridvit list` shows all models.")
        taken = [option for option in self.model_options if option in TASK_OPTIONS]
        if taken:
            raise UsageError(
                f"Recipe key 'model_options' sets {taken[0]}, but the task decides that from the images and "
                "'pretrained'. Leave it out."
            )
        if self.optim.backbone_lr != 1 and not self.has_head:
            raise UsageError(
                f"Recipe key 'optim.backbone_lr' is {self.optim.backbone_lr}, but models of the task '{self.task}' "
                "have no head of their own. Leave it out, or set optim.layer_decay."
            )
        word, _, count = self.freeze.partition(" ")
        if self.freeze not in ("", "backbone") and not (word == "stages" and count.isdecimal()):
            raise UsageError(
                f"Recipe key 'freeze' is '{self.freeze}', but it must be backbone, or stages and a number, such as "
                "'stages 2'."
            )
        if not self.fit:
            within("schedule.warmup_epochs", self.schedule.warmup_epochs, 0, self.schedule.epochs)
            within("schedule.warmup_steps", self.schedule.warmup_steps, 0, self.schedule.steps or float("inf"))
        at_least("seed", self.seed, 0, "random generators take no negative seed")
        positive("validate_every", self.validate_every)
        positive("save_every", self.save_every)
        at_least("early_stop", self.early_stop, 0, "0 stands for never")
        at_least("keep", self.keep, 1, "the newest checkpoint must stay")
        at_least("num_nodes", self.num_nodes, 1, "there must be a machine")
        at_least("timeout_seconds", self.timeout_seconds, 5, "saving and validating must fit in")
        if isinstance(self.devices, int):
            at_least("devices", self.devices, 1, "there must be a device")
        elif self.devices != "auto" and len(set(self.gpu_numbers)) != len(self.devices.strip(",").split(",")):
            raise UsageError(
                f"Recipe key 'devices' is '{self.devices}', but it must be a whole number, 'auto', or the numbers of "
                "GPUs, each once, such as 0,1."
            )
        if self.data.needs_root and not self.data.root and not self.dry_run:
            raise UsageError(
                "Recipe key 'data.root' is empty, but the images must come from somewhere. Give the folder that they "
                "are in: --data.root FOLDER."
            )

    @property
    def gpu_numbers(self) -> tuple[int, ...]:
        """The GPUs that `devices` names; empty where it gives their count, or leaves it open."""
        numbers = self.devices.strip(",").split(",") if isinstance(self.devices, str) else []
        return tuple(int(number) for number in numbers if number.strip().isdecimal())

    @property
    def images_divide_by(self) -> int:
        """What the number of images of a micro-batch must be a multiple of."""
        return 1

    @property
    def creation(self) -> dict[str, Any]:
        """The keywords of `create_model` that the recipe decides, besides those that follow from its images."""
        return {"task": self.task, **self.model_options}

    @property
    def learns_from_average(self) -> bool:
        """Whether the moving average of the weights answers in each step."""
        return False

    @property
    def methods(self) -> tuple[str, ...]:
        """What a step does besides learning from the targets, in words."""
        return ()

    def trial_settings(self) -> tuple[dict[str, Any], list[str]]:
        """The keys that a dry run sets otherwise, and a line for each thing that is thereby left out or changed."""
        if self.pretrained is False:
            return {}, []
        weights = "the published ones" if self.pretrained is True else self.pretrained
        return {"pretrained": False}, [f"left out: the weights to start from ({weights}); random ones take the place"]
