"""From the options of an export to the one graph that they describe, refused before anything is computed."""

import math

from hybridvit.card import ModelCard, as_size
from hybridvit.errors import UsageError
from hybridvit.export.exporter import Exporter
from hybridvit.export.options import Batch, ExportOptions
from hybridvit.export.sizes import check_range
from hybridvit.export.spec import OF_BACKBONE, PRECISIONS, GraphSpec
from hybridvit.models.registry import VARIANTS
from hybridvit.models.whole import WholeModel
from hybridvit.task import Task, find_task


def resolve(model: WholeModel, card: ModelCard, exporter: Exporter, options: ExportOptions) -> GraphSpec:
    """The graph that a target is to be given. Raises UsageError for what it, or this model, cannot do."""
    target, task = exporter.target, find_task(card.task)
    _check_precision(exporter, options.precision)
    if options.limit is not None and not (math.isfinite(options.limit) and options.limit > 0):
        raise UsageError(f"limit is {options.limit:g}, but must be a difference above 0, such as 1e-4.")
    returns = _returns(model, card, options.returns)
    lists = task.lists_objects and returns == task.returns
    if lists:
        _check_lists(exporter, task, options)
    sizes = tuple(as_size(size) for size in options.image_sizes)
    if sizes and not exporter.takes_several_sizes:
        raise UsageError(
            f"image_sizes is set, but a file of the target '{target}' takes one size, or any with dynamic_size. Export "
            "it once per size with image_size."
        )
    if sizes and (options.dynamic_size or options.image_size):
        raise UsageError("image_sizes is set beside image_size or dynamic_size: the sizes are those or any. Give one.")
    if options.dynamic_size and not exporter.takes_dynamic_size:
        raise UsageError(
            f"dynamic_size is set, but files of the target '{target}' take fixed sizes. "
            + ("Use image_sizes for several." if exporter.takes_several_sizes else "Export one file per image_size.")
        )
    return GraphSpec(
        image_size=options.image_size or (sizes[0] if sizes else card.preprocessing.image_size),
        channels=model.in_chans,
        batch=_batch(exporter, options.batch, lists=lists),
        range_px=_range(model, card, exporter, options, lists=lists),
        image_sizes=sizes,
        pixels="uint8" if options.uint8 else "float32",
        precision=options.precision,
        returns=returns,
        answers=task.also_returns.get(returns) or task.answers_of(card),
        top_k=_top_k(model, returns, options.top_k),
        argmax=_argmax(task, returns, options),
        strides=tuple(info["reduction"] for info in model.feature_info) if returns == "pyramid" else (),
        opset=_opset(exporter, options.opset),
    )


def _check_precision(exporter: Exporter, precision: str) -> None:
    if precision not in PRECISIONS:
        raise UsageError(f"precision is {precision!r}, but must be one of {', '.join(PRECISIONS)}.")
    if precision not in exporter.precisions:
        able = [name for name, other in _exporters().items() if precision in other.precisions]
        raise UsageError(
            f"The target '{exporter.target}' has no {precision}: it writes {', '.join(exporter.precisions)}. Targets "
            f"with {precision}: {', '.join(able)}."
        )


def _returns(model: WholeModel, card: ModelCard, returns: str | None) -> str:
    """What the file returns; by default the answers of the task, or of an image tower the embedding."""
    task = find_task(card.task)
    if returns in ("features", "embeddings", "map") and task.heads:
        what = {"features": "the pooled vector before a classifier", "map": "the map that a classifier reads"}
        raise UsageError(
            f"returns is '{returns}', {what.get(returns, 'the vector of an image tower')}, and a model of the task "
            f"'{task.name}' has none. Choose {', '.join((task.returns, *task.also_returns))} or pyramid."
        )
    variant = VARIANTS.get(card.architecture)
    width = variant.published.embedding_width if variant else None
    if returns == "embeddings" and not (width and model.num_classes and not card.class_names):
        raise UsageError(
            f"returns is 'embeddings', the projection of an image tower at length 1, and this {card.architecture} has "
            "no projection. Choose features, the pooled vector."
        )
    if returns is None and width and width == model.num_classes and not card.class_names:
        return "embeddings"
    known = (task.returns, *task.also_returns, *OF_BACKBONE)
    if returns is not None and returns not in known:
        raise UsageError(
            f"returns is {returns!r}, but a file of a model of the task '{task.name}' can return {', '.join(known)}."
        )
    return returns or task.returns


def _check_lists(exporter: Exporter, task: Task, options: ExportOptions) -> None:
    """Lists of objects: what a target or its graph cannot do."""
    if not exporter.takes_lists:
        able = [name for name, other in _exporters().items() if other.takes_lists]
        raise UsageError(
            f"The target '{exporter.target}' cannot hold {task.returns}: which boxes remain is decided by their "
            f"values, and it has no operators for that. Targets that have: {', '.join(able)}. With returns 'pyramid' "
            "it gives the feature maps, for a head of your own."
        )
    if options.dynamic_size or options.image_sizes:
        raise UsageError(
            f"A file that gives {task.returns} takes one size: the anchors, and how many of them are looked at, are "
            "constants of its graph. Export one file per image_size; pictures are padded to it."
        )
    if options.batch == "dynamic":
        raise UsageError(
            f"The batch is 'dynamic', but a file that gives {task.returns} takes one number of images, each of which "
            "has a part of the graph of its own. Give that number; a larger batch is run in parts when the file is "
            "opened here."
        )


def _exporters() -> dict[str, Exporter]:
    from hybridvit.export.targets import EXPORTERS

    return EXPORTERS


def _argmax(task: Task, returns: str, options: ExportOptions) -> str:
    if not options.argmax:
        return ""
    if not task.argmax or returns != task.returns:
        raise UsageError(
            f"argmax is set, but the file is to return {returns}, and argmax gives the class of each pixel of a "
            "segmentation. Leave it out."
        )
    return task.argmax


def _range(
    model: WholeModel, card: ModelCard, exporter: Exporter, options: ExportOptions, *, lists: bool
) -> tuple[int, int] | None:
    """The smallest and the largest side of a file that takes any size.

    Pictures of a model that shows them whole have sizes of their own, and so has its file unless one is asked for.
    """
    can_be_any = exporter.takes_dynamic_size and options.precision not in exporter.of_one_size and not lists
    shows_whole = card.preprocessing.crop_mode == "fit" and card.fixed_size is None
    asked = options.dynamic_size or (can_be_any and shows_whole and not (options.image_size or options.image_sizes))
    return check_range(model, card, asked) if asked else None


def _batch(exporter: Exporter, batch: Batch, *, lists: bool) -> int | None:
    if batch == "dynamic":
        if not exporter.takes_dynamic_batch:
            raise UsageError(
                f"The batch is 'dynamic', but files of the target '{exporter.target}' take one number of images. Give "
                "that number; a larger batch is run in parts when the file is opened here."
            )
        return None
    if batch is None:
        return 1 if lists else exporter.default_batch
    if type(batch) is not int or batch < 1:
        raise UsageError(f"The batch is {batch!r}, but must be a whole number from 1, or 'dynamic'.")
    return batch


def _opset(exporter: Exporter, opset: int | None) -> int | None:
    known = exporter.opsets
    if opset is None or opset in known:
        return opset
    if not known:
        raise UsageError(
            f"opset is {opset}, but files of the target '{exporter.target}' have none: opsets are versions of ONNX's "
            "operators. Leave it out, or export to onnx."
        )
    raise UsageError(f"opset is {opset!r}, but must be a whole number from {known[0]} to {known[-1]}.")


def _top_k(model: WholeModel, returns: str, top_k: int | None) -> int | None:
    if top_k is None:
        return None
    given = returns if returns != "logits" else ", ".join(find_task(model.card.task).answers)
    if given != "logits":
        raise UsageError(
            f"top_k is {top_k}, but the file is to return {given}, and top_k ranks classes of which one is true. Leave "
            "one out."
        )
    if type(top_k) is not int or not 1 <= top_k <= model.num_classes:
        raise UsageError(f"top_k is {top_k!r}, but must be a whole number from 1 to {model.num_classes}.")
    return top_k
