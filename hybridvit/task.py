"""What a task is, for everything else: classification, segmentation, detection, hands.

A task is a folder below `hybridvit/tasks`, known by its row in `TASKS`. It says how its samples are read, how a model
of it is built and trained, and what an answer is worth; training, evaluation, prediction and export are written on
this file alone. Importing it needs no torch.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NewType, TypeVar

from hybridvit.batch import Batch, Frame, Sample
from hybridvit.difference import OF_LARGEST, relative_error
from hybridvit.errors import UsageError, nearest
from hybridvit.quantity import Quantity
from hybridvit.scores import Result, Scores

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import torch
    from PIL.Image import Image
    from torch import Tensor, nn

    from hybridvit.card import ModelCard, Preprocessing
    from hybridvit.data.check_contents import Contents
    from hybridvit.data.listing import Listing
    from hybridvit.data.samples import Samples
    from hybridvit.data.tiles import TilePart
    from hybridvit.recipe.recipe import Recipe

Outputs = Mapping[str, Any]
"""What a model answers a batch with, by name: tensors from PyTorch, NumPy arrays from an exported file."""
Value = TypeVar("Value")
TaskOptions = NewType("TaskOptions", Mapping[str, Any])
"""What users say of their pictures besides showing them: values of fields of a task's `asking`, by name."""
NO_OPTIONS = TaskOptions({})


def names_of(options: type) -> list[str]:
    """The fields of a dataclass."""
    return [each.name for each in fields(options)]


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Where in the training a loss is asked for."""

    step: int  # optimizer steps done
    total_steps: int
    averaged: "nn.Module | None"  # the moving average of the weights, in eval mode; None if the recipe keeps none


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an objective computes."""

    device: "torch.device"
    layout: "torch.memory_format"  # of images and kernels
    micro_batch: int  # images of a loss
    autocast: "Callable[[], Any]"  # a context in the precision of the run
    samples: "Samples | None" = None  # that are trained on, where they are known


class Metric(ABC):
    """Judges the answers to batches. With several processes each judges its own, and `compute` is over all."""

    @abstractmethod
    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Take in the answers to a batch."""

    @abstractmethod
    def compute(self) -> Scores:
        """Called by every process."""


class Predictions(ABC):
    """Takes in answers batch by batch, to be a file in a form that others judge."""

    @abstractmethod
    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Take in the answers to a batch. Raises UsageError for outputs that are no answer of the task."""

    @abstractmethod
    def write(self) -> None:
        """Write the file, whole or not at all."""


class Objective(ABC):
    """What a training minimises. Built once per process and run."""

    terms: "Mapping[str, Tensor]" = MappingProxyType({})
    """What the loss that was given last is the sum of, by name and without gradient; empty where it is one. Curves and
    metrics.csv have each; its names and their order are those of every step."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """JSON values that must be the same when a run is resumed."""
        return {}

    @abstractmethod
    def loss(self, model: "nn.Module", batch: Batch, moment: Moment) -> "Tensor":
        """The mean loss of a micro-batch, whose inputs may be changed in place.

        All randomness comes from the global generators, which are seeded before. Of `model` nothing but `forward` is
        called: it may be a wrapper.
        """


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Samples to train and to validate on, and how validation prepares them."""

    train: "Samples"
    validation: "Samples"
    preprocessing: "Preprocessing"


class Task(ABC):
    """One kind of thing to learn. Stateless; importing a task needs no torch, its methods may."""

    name: str
    quantities: tuple[Quantity, ...]  # the first is the headline, which decides between weights
    recipe: "type[Recipe]"
    answers: tuple[str, ...]
    """The names that `forward` gives, in the order of an exported file's outputs; "logits" are of classes of which an
    image has one."""
    heads: ClassVar[Mapping[str, type]] = {}
    """The heads that its models can have, the default first: dataclasses of their options, which need no torch to be
    imported. Empty where the backbone's own classifier answers."""
    pipeline_tag: ClassVar[str] = ""
    """What the Hugging Face hub calls the task; empty: nothing."""
    ways: ClassVar[tuple[str, ...]] = ()
    """Other ways to ask a model than once for each batch, such as in several sizes: `evaluate --way`."""
    joins_tiles: ClassVar[bool] = False
    """Whether `joined` makes one answer of the answers to the tiles of a large picture."""
    num_classes = 1000  # of a model that is created without saying how many: those of the data set its papers train on
    returns: ClassVar[str] = "logits"
    """What these answers are called where an export is asked for them: `--returns`."""
    also_returns: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType({})
    """What else an export can be asked for, by name: some of the answers alone."""
    argmax: ClassVar[str] = ""
    """What the number of the class with the largest logit (b classes ...) is called, where a file can give it alone."""
    lists_objects: ClassVar[bool] = False
    """Whether answers are lists of what is found, the best first: which boxes remain is decided by values, which a
    graph can hold for one size of image alone, and not each runtime has the operators for it."""
    has_files_of_several: ClassVar[bool] = False
    """Whether several answers together are files too, so that these have to be kept."""
    asking: ClassVar[type | None] = None
    """A dataclass of what users can say of pictures besides showing them: options of `predict`, all with a default."""
    tolerance: ClassVar[float] = 1.0
    """How many times the limit of a target, which is a share of the largest logit, its answers may `difference` by."""

    counted_in: ClassVar[str] = OF_LARGEST
    """What `difference` counts in, as words behind the number."""

    @property
    def headline(self) -> Quantity:
        """What models of this task are compared by."""
        return self.quantities[0]

    def asked(self, options: "TaskOptions") -> "Task":
        """The task as it answers where users say more of their pictures: some fields of `asking`, by name.

        Raises UsageError for one that it has not, or a value that it cannot have.
        """
        unknown = [name for name in options if self.asking is None or name not in names_of(self.asking)]
        if unknown:
            raise UsageError(
                f"--{unknown[0]} is set, but models of the task '{self.name}' have no use for it. Leave it out."
            )
        return self

    def shown(self, picture: "Image", preprocessing: "Preprocessing", name: str) -> "tuple[np.ndarray, Frame] | None":
        """An upright picture as a model is to see it (c h w), and where that lies in it, if the user said more of it.

        `name` is the picture's. None: as the card says. Raises UsageError for what does not fit the picture.
        """
        return None

    def tried(self) -> "Task":
        """The task as a dry run tries it: what would have to be fetched is made up."""
        return self

    def prepared(self, preprocessing: "Preprocessing", image_size: tuple[int, int] | None) -> "Preprocessing":
        """How pictures are prepared for models on a backbone whose own preparation is `preprocessing`.

        `image_size` is what the user asks for, if he does.
        """
        return preprocessing if image_size is None else replace(preprocessing, image_size=image_size)

    def companions(self, recipe: Any, num_classes: int) -> "Sequence[nn.Module]":
        """Models that answer beside the trained one in each step, on the meta device: for estimates of memory."""
        return ()

    @abstractmethod
    def open(self, recipe: Any) -> Splits:
        """The recipe's samples, listed but not decoded. Raises DatasetError where they are not fit to use."""

    @abstractmethod
    def labelled(
        self,
        root: str,
        card: "ModelCard",
        *,
        on_bad_image: Any = "error",
        image_column: str = "",
        label_column: str = "",
    ) -> "Samples":
        """What is true of the pictures in a folder, prepared and numbered as a model's card says, to evaluate it on.

        Where `root` is a table, the columns are named, or found by usual names. Raises DatasetError for a folder that
        is none of this task's, or not one of this model's; UsageError for columns of what is no table.
        """

    def listed(self, data: Any) -> "Mapping[str, Listing[Any]]":
        """The images in the tables that a recipe's `data` names, by split, whether the files are there or not.

        For `check-data`. Raises UsageError where the task reads no tables, DatasetError for those that cannot be read.
        """
        raise UsageError(f"The task '{self.name}' reads no tables. Give a folder of images, without --recipe.")

    def contents(self, root: str, data: Any = None) -> "Contents | None":
        """What a data set that is laid out as this task's holds, and what is wrong with it, for `check-data`.

        None where `root` is no such data set, which a glance has to tell. `data` are the keys of a recipe that say how
        it is read; None: found by looking. Folders of classes and tables of labels need nothing here. Raises
        DatasetError for a data set that cannot be read.
        """
        return None

    @abstractmethod
    def collate(self, samples: Sequence[Sample]) -> Batch:
        """A batch of the samples that have an image."""

    @abstractmethod
    def example(self, recipe: Any, num_images: int) -> Batch:
        """A batch of the recipe's sizes with made-up content, on the CPU: for trials of memory and of devices."""

    @abstractmethod
    def start(self, recipe: Any, splits: Splits) -> "nn.Module":
        """The model to train, in training form, with the recipe's pretrained weights if any, and with its card.

        Raises UsageError or CheckpointError for weights that do not fit the samples.
        """

    @abstractmethod
    def build(self, card: "ModelCard") -> "nn.Module":
        """The training form of the model that a card describes, with random weights; on the meta device without.

        It is a `WholeModel`. With a head it is what `hybridvit.build.with_head` gives.
        """

    @abstractmethod
    def objective(self, recipe: Any, card: "ModelCard", place: Place) -> Objective:
        """What the recipe minimises."""

    @abstractmethod
    def forward(self, model: "nn.Module", inputs: "Tensor") -> "dict[str, Tensor]":
        """What a model of this task answers, by name, in fp32."""

    def in_way(self, answer: "Callable[[Batch], Outputs]", way: str, card: "ModelCard") -> "Callable[[Batch], Outputs]":
        """What answers a batch by asking `answer` in one of `ways`. Raises UsageError for another."""
        known = nearest(way, self.ways) if self.ways else f"The task '{self.name}' has one way to answer"
        raise UsageError(f"There is no way '{way}' to evaluate a model. {known}. Leave --way out for the usual one.")

    def answers_of(self, card: "ModelCard") -> tuple[str, ...]:
        """The names that `forward` gives for the model that a card describes."""
        return self.answers

    def notice(self, card: "ModelCard", answers: tuple[str, ...]) -> str:
        """What has to be known of a file that gives these answers, such as whose data is in it; empty: nothing."""
        return ""

    def needs(self, card: "ModelCard") -> str:
        """What a user has to get beside a checkpoint of the model before it answers; empty: nothing."""
        return ""

    def difference(self, given: Outputs, wanted: Outputs) -> float:
        """How far two answers to a batch (NumPy arrays) are apart; infinite where a number is not finite."""
        return max(relative_error(given[name], expected) for name, expected in wanted.items())

    @abstractmethod
    def metric(self, card: "ModelCard", *, num_examples: int = 0) -> Metric:
        """Judges answers; `num_examples` asks for so many of each group of examples."""

    def predictions(self, samples: "Samples", card: "ModelCard", path: "Path") -> Predictions:
        """For `evaluate --write_pred`: what collects answers to samples, to be a file at `path` that others judge.

        Raises UsageError where others have no form for the answers of this task, or none of that ending.
        """
        raise UsageError(
            f"{path} was to have the answers in a form in which others judge them, but there is none for the task "
            f"'{self.name}'. Leave --write_pred out."
        )

    def files_of_video(self, results: "Sequence[Any]", seconds: Sequence[float]) -> Mapping[str, bytes]:
        """What is a file of all answers to a video's frames, at their times, by what stands behind the video's name."""
        return {}

    def files_of_pictures(self, names: Sequence[str], results: "Sequence[Any]") -> Mapping[str, bytes]:
        """What is a file of all answers to single pictures, by name."""
        return {}

    @abstractmethod
    def results(
        self, outputs: Outputs, frames: Sequence[Frame | None], card: "ModelCard", *, most: int | None = None
    ) -> Sequence[Result]:
        """The answers to the single pictures of a batch, from NumPy arrays of whatever form.

        `most` is how many entries an answer has at most, where it is a list. Raises UsageError, as the end of a
        sentence about the file, for outputs that are no answer of this task, or fewer than `most`.
        """

    def joined(self, parts: "Iterable[TilePart]", picture_size: tuple[int, int], card: "ModelCard") -> Outputs:
        """What a model answers to a large picture (height, width in pixels), from its answers to overlapping tiles.

        A batch of one in a form that `results` and the metric take, as of an input that is the picture itself. The
        parts are computed one after the other as they are asked for, so that memory need not hold them all. Raises
        UsageError where the task joins none: `joins_tiles` tells before the work.
        """
        raise UsageError(
            f"The task '{self.name}' answers to whole pictures, so answers to tiles cannot be joined. Leave --tile out."
        )


DEFAULT_TASK = "classify"  # of recipes and cards that name none
TASKS: dict[str, str] = {  # imported when first asked for
    "classify": "hybridvit.tasks.classify.task:Classify",
    "multilabel": "hybridvit.tasks.multilabel.task:Multilabel",
    "segment": "hybridvit.tasks.segment.task:Segment",
    "detect": "hybridvit.tasks.detect.task:Detect",
    "hand": "hybridvit.tasks.hand.task:HandTask",
}


@dataclass(frozen=True, kw_only=True)
class CommandGroup:
    """What a task adds to the command line: `hybridvit NAME WORD`."""

    summary: str  # one line for the overview
    examples: tuple[str, ...]  # whole command lines
    functions: Mapping[str, str]  # by word; typed as `hybridvit.cli.command` asks for, and imported when first called


COMMANDS: dict[str, CommandGroup] = {
    "hand": CommandGroup(
        summary="Render pictures of hands to train and evaluate on.",
        examples=("hybridvit hand render runs/data/hands",),
        functions={"render": "hybridvit.tasks.hand.scene_command:render"},
    ),
    "mano": CommandGroup(
        summary="Make MANO's hand ready for use, and tell what is in a hand's file.",
        examples=(
            "hybridvit mano convert mano_v1_2/models/MANO_RIGHT.pkl",
            "hybridvit mano info hand-right.safetensors",
        ),
        functions={
            "convert": "hybridvit.tasks.hand.commands:convert",
            "info": "hybridvit.tasks.hand.commands:info",
        },
    ),
}


def find_task(name: str) -> Task:
    """The task of that name. Raises UsageError for an unknown one, with the nearest."""
    if name not in TASKS:
        raise UsageError(f"There is no task '{name}'. {nearest(name, TASKS)}.")
    module, _, attribute = TASKS[name].partition(":")
    return getattr(import_module(module), attribute)()
