"""From the options of an export to the one graph that they describe, refused before anything is computed."""

from hybridvit.card import ModelCard, as_size
from hybridvit.errors import UsageError
from hybridvit.export.exporter import Exporter
from hybridvit.export.options import Batch, ExportOptions
from hybridvit.export.sizes import check_range
from hybridvit.export.spec import PRECISIONS, RETURNS, GraphSpec, Returns
from hybridvit.models.whole import WholeModel
from hybridvit.task import find_task


def resolve(model: WholeModel, card: ModelCard, exporter: Exporter, options: ExportOptions) -> GraphSpec:
    """The graph that a target is to be given. Raises UsageError for what it, or this model, cannot do."""
    target, precision, returns = exporter.target, options.precision, options.returns
    for name, value, known in (("precision", precision, PRECISIONS), ("returns", returns, RETURNS)):
        if value not in known:
            raise UsageError(f"{name} is {value!r}, but must be one of {', '.join(known)}.")
    if precision not in exporter.precisions:
        from hybridvit.export.targets import EXPORTERS

        able = [name for name, other in EXPORTERS.items() if precision in other.precisions]
        raise UsageError(
            f"The target '{target}' has no {precision}: it writes {', '.join(exporter.precisions)}. Targets with "
            f"{precision}: {', '.join(able)}."
        )
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
    if returns == "features" and find_task(card.task).heads:
        raise UsageError(
            f"returns is 'features', the pooled vector before a classifier, and a model of the task '{card.task}' has "
            "none. Choose logits, which stands for its answers, or pyramid."
        )
    return GraphSpec(
        image_size=options.image_size or (sizes[0] if sizes else card.preprocessing.image_size),
        channels=model.in_chans,
        batch=_batch(exporter, options.batch),
        range_px=_range(model, card, exporter, options),
        image_sizes=sizes,
        pixels="uint8" if options.uint8 else "float32",
        precision=precision,
        returns=returns,
        answers=find_task(card.task).answers,
        top_k=_top_k(model, returns, options.top_k),
        strides=tuple(info["reduction"] for info in model.feature_info) if returns == "pyramid" else (),
        opset=_opset(exporter, options.opset),
    )


def _range(model: WholeModel, card: ModelCard, exporter: Exporter, options: ExportOptions) -> tuple[int, int] | None:
    """The smallest and the largest side of a file that takes any size.

    Pictures of a model that shows them whole have sizes of their own, and so has its file unless one is asked for.
    """
    of_any_size = card.preprocessing.crop_mode == "fit" and exporter.takes_dynamic_size and card.fixed_size is None
    asked = options.dynamic_size or (of_any_size and not (options.image_size or options.image_sizes))
    return check_range(model, card, asked) if asked else None


def _batch(exporter: Exporter, batch: Batch) -> int | None:
    if batch == "dynamic":
        if not exporter.takes_dynamic_batch:
            raise UsageError(
                f"The batch is 'dynamic', but files of the target '{exporter.target}' take one number of images. Give "
                "that number; a larger batch is run in parts when the file is opened here."
            )
        return None
    if batch is None:
        return exporter.default_batch
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


def _top_k(model: WholeModel, returns: Returns, top_k: int | None) -> int | None:
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
