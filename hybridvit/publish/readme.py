"""README.md of a model's repository: its front matter for the hub, its measured numbers for people."""

import html
from collections.abc import Mapping, Sequence
from importlib.resources import files

from hybridvit.card import Preprocessing
from hybridvit.errors import FoldError
from hybridvit.folding.fold import fold
from hybridvit.measure.counts import count
from hybridvit.models.registry import VARIANTS
from hybridvit.publish.finished import FinishedRun
from hybridvit.publish.licence import in_front_matter
from hybridvit.publish.timm_layout import Layout, fits_timm
from hybridvit.training.record.page import settings_of

MOST_CLASSES = 100  # that are named in the text; config.json has all


def readme(run: FinishedRun, layout: Layout, repository: str, *, licence: str, pictures: Mapping[str, str]) -> str:
    """The text of the page. `pictures` are titles by the names of files in the repository."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["cell"] = cell
    template = environment.from_string(files("hybridvit.publish").joinpath("readme.md.jinja").read_text("utf-8"))
    card = run.model.card
    return template.render(
        front_matter=front_matter(run, layout, repository, licence),
        name=repository.partition("/")[2],
        repository=repository,
        lead=_lead(run),
        pictures=list(pictures.items()),
        measured=_measured(run),
        protocol=_protocol(run),
        machine=list((run.result.get("machine") or {}).items()),
        opens_in=layout.opens_in,
        architecture=layout.config["architecture"],
        has_arguments="model_args" in layout.config,
        mode="RGB" if len(card.preprocessing.mean) == 3 else "L",
        class_names=_named(card.class_names),
        is_of_one="logits" in run.task.answers,
        preparation=_preparation(card.preprocessing),
        training=_training(run),
        settings=settings_of(run.recipe).rows,
        limits=_limits(run, layout),
        licence=_licence(run, licence),
    )


def front_matter(run: FinishedRun, layout: Layout, repository: str, licence: str) -> str:
    """YAML that the hub reads, without its fences."""
    from huggingface_hub import EvalResult, ModelCardData

    tag, in_timm = run.task.pipeline_tag, layout.opens_in == "timm"
    family = VARIANTS[run.recipe.model].family if run.recipe.model in VARIANTS else "timm"
    data = run.data_on_hub or run.recipe.data.root or run.recipe.data.source
    results = [
        EvalResult(
            task_type=tag or run.task.name,
            dataset_type=data,
            dataset_name=data,
            dataset_split=run.recipe.data.val or None,
            metric_type=quantity.name,
            metric_name=quantity.heading + (f" ({quantity.unit})" if quantity.unit else ""),
            metric_value=round(value, quantity.decimals + 2),
        )
        for quantity, value in run.telling
    ]
    told = ModelCardData(
        **in_front_matter(licence),
        library_name="timm" if in_timm else "hybridvit",
        pipeline_tag=tag or None,
        tags=[*filter(None, (tag,)), "hybridvit", family, *(("timm", "transformers") if in_timm else ())],
        datasets=[run.data_on_hub] if run.data_on_hub else None,
        base_model=run.base if "/" in run.base else None,
        metrics=[quantity.name for quantity, _ in run.telling],
        model_name=repository.partition("/")[2],
        eval_results=results,
    )
    return told.to_yaml() + "\n"


def cell(text: object) -> str:
    """A text in a cell of a table, which it neither leaves nor marks up."""
    return html.escape(str(text), quote=False).replace("|", "\\|").replace("\n", " ").replace("`", "\\`")


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(cell(name) for name in names[:MOST_CLASSES])
    return shown if len(names) <= MOST_CLASSES else f"{shown} and {len(names) - MOST_CLASSES:,} more in `config.json`"


def _lead(run: FinishedRun) -> str:
    card, result = run.model.card, run.result
    quantity, value = run.measured[0]
    classes = f", {len(card.class_names):,} classes" if card.class_names else ""
    height, width = card.preprocessing.image_size
    head = f" with the head `{card.head}`" if card.head else ""
    on = cell(run.data_on_hub or run.recipe.data.root or run.recipe.data.source)
    images = f" on {result['num_images']:,} validation images" if result.get("num_images") else ""
    return (
        f"`{card.architecture}`{head} for the task `{card.task}`, trained on {on}{classes}, at {height}x{width} px: "
        f"{quantity.title} {quantity.text(value)}{images}."
    )


def _measured(run: FinishedRun) -> list[tuple[str, str]]:
    result, size = run.result, run.model.card.preprocessing.image_size
    whole = count(run.model.eval(), size)
    rows = [(quantity.heading, quantity.text(value)) for quantity, value in run.telling]
    if result.get("folded") is not None:
        same, images = result["same_answers"], result["num_images"]
        text = f"{run.task.headline.text(result['folded'])}; the same answer on {same:,} of {images:,} images"
        rows.append((f"{run.task.headline.heading} folded", text))
    parameters, multiply_adds = f"{whole.parameters:,}", f"{whole.multiply_adds:,}"
    try:
        folded = count(fold(run.model), size)
        parameters += f" in training form, {folded.parameters:,} folded"
        multiply_adds += f" in training form, {folded.multiply_adds:,} folded"
    except FoldError:
        pass  # the rows of the training form say all that there is
    return [*rows, ("Parameters", parameters), (f"Multiply-adds at {size[0]}x{size[1]} px", multiply_adds)]


def _protocol(run: FinishedRun) -> str:
    result, data = run.result, run.recipe.data
    held_out = f"a part of {data.train} held out" if data.val_share or data.fold else f"the split {data.val}"
    images = f"all {result['num_images']:,} images of " if result.get("num_images") else ""
    precision = "fp32" if run.recipe.precision == "32-true" else run.recipe.precision
    averaged = "the moving average of the weights" if run.averaged else "the weights"
    return (
        f"Measured by hybridvit in {precision} on {images}{cell(held_out)}, prepared as below, with {averaged} of "
        f"epoch {result['epoch']:.4g}: the best of {len(run.history):,} validations. These images chose the weights, "
        "so others may be answered a little worse. `hybridvit evaluate` measures it on yours."
    )


def _preparation(prepared: Preprocessing) -> list[tuple[str, str]]:
    height, width = prepared.image_size
    rows = [
        ("Size", f"{height}x{width} px"),
        ("Cropping", f"{prepared.crop_mode}, {prepared.crop_fraction:g} of the resized picture"),
        ("Resizing", prepared.interpolation),
        ("Channels", str(len(prepared.mean))),
        ("Mean, of values from 0 to 1", ", ".join(f"{value:g}" for value in prepared.mean)),
        ("Standard deviation", ", ".join(f"{value:g}" for value in prepared.std)),
        ("EXIF orientation", "turned upright" if prepared.exif_orientation else "as the sensor stored it"),
    ]
    levels = [] if prepared.levels is None else [("Black and white", "{:g}, {:g}".format(*prepared.levels))]
    return rows + levels


def _training(run: FinishedRun) -> str:
    began = f"Began with the weights of `{run.base}`" if run.base else "Began with random weights"
    return (
        f"{began}; {cell(run.model.card.source)}, {run.history[-1]['epoch']:.4g} epochs. The keys of the recipe that "
        "differ from the defaults:"
    )


def _limits(run: FinishedRun, layout: Layout) -> list[str]:
    card = run.model.card
    height, width = card.preprocessing.image_size
    limits = [
        "What it does with pictures unlike those it was trained on, or at other sizes than "
        f"{height}x{width} px, was not measured."
    ]
    if needs := run.task.needs(card):
        limits.append(needs)
    if card.class_names and not card.head:
        limits.append(
            "It answers with one of its classes whatever a picture shows."
            if "logits" in run.task.answers
            else "It knows no other labels."
        )
    if layout.opens_in != "hybridvit" and not fits_timm(card.preprocessing):
        limits.append(
            f"timm and transformers have no way to prepare pictures with `{card.preprocessing.crop_mode}`"
            f"{' and levels' if card.preprocessing.levels else ''}: do it as the table says, or use hybridvit."
        )
    elif layout.opens_in != "hybridvit" and card.preprocessing.exif_orientation:
        limits.append("timm and transformers do not turn photos upright: `ImageOps.exif_transpose` does, as above.")
    return limits


def _licence(run: FinishedRun, licence: str) -> str:
    if not licence:
        return "None was stated: ask the owner of this repository before you use the weights."
    of_base = f"That of the weights it was made from (`{run.base}`): " if run.base else ""
    notice = run.model.card.licence_notice
    return f"{of_base}{cell(licence)}." + (f"\n\n**{notice}**" if notice else "")
