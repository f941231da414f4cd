"""Accuracy of a model on labelled images, exact on any number of processes."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch
import torch.distributed
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from hybridvit.card import ModelCard
from hybridvit.data.folder import ImageFolder
from hybridvit.data.images import Images
from hybridvit.data.loader import Batch, Loader, make_eval_loader
from hybridvit.data.transforms import eval_transform
from hybridvit.errors import DatasetError
from hybridvit.training.engine.memory import is_out_of_memory
from hybridvit.training.record.progress import Watch

logger = logging.getLogger(__name__)

LARGEST_CONFUSION = 1000  # classes; the matrix grows with their square


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The model's answer to one labelled image."""

    path: str
    label: int
    predicted: int
    confidence: float  # softmax probability of `predicted`


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a model gets right. Accuracies in percent, `loss` the mean cross-entropy."""

    top1: float
    top5: float  # top-n where there are n < 5 classes
    loss: float
    num_images: int
    num_skipped: int  # files that could not be decoded, and count neither way
    seconds: float
    class_names: tuple[str, ...]
    confusion: Tensor | None  # [label, predicted] counts; None above 1,000 classes
    predictions: tuple[Prediction, ...]  # in the order of the data set; empty unless asked for


def evaluate(
    model: nn.Module,
    images: Images,
    *,
    batch_size: int = 64,
    workers: int = 0,
    keep_predictions: bool = False,
) -> Evaluation:
    """Accuracy of a model, wherever it lies, on labelled images (b c h w as the set's transform makes them).

    `keep_predictions` keeps the answer to every image. Raises DatasetError if there is no image,
    ImageDecodeError for a bad file unless the set tolerates those.
    """
    loader = make_eval_loader(images, batch_size=batch_size, workers=workers)
    try:
        return evaluate_loader(model, loader, keep_predictions=keep_predictions)
    finally:
        loader.close()


def evaluate_folder(
    model: nn.Module,
    root: str | Path,
    *,
    batch_size: int = 64,
    workers: int = 0,
    on_bad_image: Literal["error", "skip"] = "error",
    keep_predictions: bool = False,
) -> Evaluation:
    """Accuracy on a folder of class folders, prepared as the model's card says, with the card's class map.

    Raises as `evaluate`; also DatasetError where the folder has a class that the model does not know, or, if the card
    names no classes, another number of them than the model.
    """
    card = cast(ModelCard, model.card)
    images = ImageFolder(
        root,
        transform=eval_transform(card.preprocessing),
        class_names=card.class_names or None,
        on_bad_image=on_bad_image,
    )
    num_outputs = card.options.get("num_classes", 1000)
    if len(images.class_names) != num_outputs:
        raise DatasetError(
            f"{root} has {len(images.class_names)} class folders, but the model answers with {num_outputs} classes and "
            "does not name them. Give a folder with exactly these classes, in the order of their names."
        )
    return evaluate(model, images, batch_size=batch_size, workers=workers, keep_predictions=keep_predictions)


def evaluate_loader(
    model: nn.Module, loader: Loader, *, keep_predictions: bool = False, watch: Watch | None = None
) -> Evaluation:
    """One pass over an evaluation loader in eval mode; the model's mode is as before afterwards.

    Each process gives its own share of the images, none twice; the metrics are over all shares, `predictions` are
    this process's. `watch` is told after each batch.
    """
    class_names = loader.images.class_names
    num_classes = len(class_names)
    if num_classes < 2:
        raise DatasetError(f"There is one class, {class_names[0]!r}: every answer would be right. Add another.")
    parameter = next(model.parameters())
    device = parameter.device
    layout = torch.channels_last if _is_channels_last(model) else torch.contiguous_format
    metrics: dict[str, Metric | MetricCollection] = {
        "top1": MulticlassAccuracy(num_classes, average="micro"),
        "top5": MulticlassAccuracy(num_classes, average="micro", top_k=min(5, num_classes)),
        "loss": MeanMetric(),
    }
    if num_classes <= LARGEST_CONFUSION:
        metrics["confusion"] = MulticlassConfusionMatrix(num_classes)
    collection = MetricCollection(metrics, compute_groups=False).to(device)
    predictions: list[Prediction] = []
    answers = _Answers(model)
    was_training = model.training
    model.eval()
    began = time.perf_counter()
    try:
        with torch.no_grad():
            for number, batch in enumerate(loader, start=1):
                images = batch.images.to(device, parameter.dtype, memory_format=layout, non_blocking=True)
                logits = answers(images)
                labels = batch.labels.to(device)
                _count(collection, logits, labels)
                if keep_predictions:
                    predictions += _answers(loader.images, batch, logits)
                if watch is not None:
                    watch(number, len(loader))
    finally:
        model.train(was_training)
    num_images, num_skipped = _over_all_ranks(loader.num_used, loader.num_total - loader.num_used, device)
    if num_images == 0:
        raise DatasetError("There is no image to evaluate on. Check the folder of the validation images.")
    values = collection.compute()
    return Evaluation(
        top1=_percent(values["top1"]),
        top5=_percent(values["top5"]),
        loss=values["loss"].item(),
        num_images=num_images,
        num_skipped=num_skipped,
        seconds=time.perf_counter() - began,
        class_names=tuple(class_names),
        confusion=values["confusion"].cpu() if "confusion" in values else None,
        predictions=tuple(predictions),
    )


class _Answers:
    """The logits of a model; a batch that memory does not hold is shared out, and so are those after it.

    Images do not depend on one another in eval mode, so this changes no answer by more than its last bits.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._largest: int | None = None

    def __call__(self, images: Tensor) -> Tensor:
        while True:
            size = min(self._largest or len(images), len(images))
            try:
                return torch.cat([self._model(part).float() for part in images.split(size)])
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or size == 1:
                    raise
            if images.device.type == "cuda":
                torch.cuda.empty_cache()
            self._largest = size // 2
            logger.warning(
                "A batch of %d images does not fit into memory for evaluation: going on with %d.", size, self._largest
            )


def _answers(images: Images, batch: Batch, logits: Tensor) -> list[Prediction]:
    confidence, predicted = logits.softmax(1).max(1)
    rows = zip(batch.samples.tolist(), batch.labels.tolist(), predicted.tolist(), confidence.tolist(), strict=True)
    return [
        Prediction(path=images.paths[sample], label=label, predicted=answer, confidence=probability)
        for sample, label, answer, probability in rows
    ]


def _count(collection: MetricCollection, logits: Tensor, labels: Tensor) -> None:
    for name, metric in collection.items():
        if name == "loss":
            losses = nn.functional.cross_entropy(logits, labels, reduction="none")
            metric.update(losses)
        else:
            metric.update(logits, labels)


def _over_all_ranks(num_images: int, num_skipped: int, device: torch.device) -> tuple[int, int]:
    if not torch.distributed.is_initialized():
        return num_images, num_skipped
    counts = torch.tensor([num_images, num_skipped], device=device)
    torch.distributed.all_reduce(counts)
    return int(counts[0]), int(counts[1])


def _is_channels_last(model: nn.Module) -> bool:
    """Whether the kernels lie channels-last, so that images should too."""
    kernels = (parameter for parameter in model.parameters() if parameter.ndim == 4)
    return any(
        kernel.is_contiguous(memory_format=torch.channels_last) and not kernel.is_contiguous() for kernel in kernels
    )


def _percent(share: Tensor) -> float:
    return round(100 * share.item(), 4)  # single precision has no more digits to give
