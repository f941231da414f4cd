"""`hybridvit explain`: why does the model answer so?"""

import shlex
from collections.abc import Mapping
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hybridvit.atomic import check_folder
from hybridvit.errors import UsageError, nearest
from hybridvit.loading import is_exported
from hybridvit.stderr import remark

if TYPE_CHECKING:
    from hybridvit.explain.activation import Target
    from hybridvit.explain.drawing import Drawing, Explaining
    from hybridvit.models.backbone import Backbone

Draw = Literal["attention", "positions", "erf", "cam", "kernels"]
MOST_PICTURES_IN_A_FIELD = 50
OF_DRAWINGS = {"label": ("cam",), "method": ("cam",), "check": ("cam",), "stage": ("cam", "erf")}


def explain(
    model: str,
    pictures: list[str],
    *,
    draw: list[Draw] | None = None,
    output: str = "explained",
    label: str | None = None,
    method: Literal["grad", "hires", "layer"] = "grad",
    stage: int | None = None,
    block: int | None = None,
    head: int | None = None,
    window: int | None = None,
    query: str | None = None,
    beside: str | None = None,
    check: bool = False,
    json: bool = False,
) -> None:
    """Show why a model answers as it does: class maps, attention, positions, receptive fields, kernels.

    Takes a checkpoint of a classifier, folded or not. One page that works offline, a PNG and an .npz of each drawing.

    Examples:
      hybridvit explain runs/digits/model.safetensors runs/data/digits/test/7/0007.png --stage 2
      hybridvit explain model.safetensors cat.jpg --draw cam attention --query 120,80 --check
      hybridvit explain model.safetensors cat.jpg --label cat,dog --method hires
      hybridvit explain model.safetensors photos --draw erf positions kernels --output why
      hybridvit explain v1.safetensors photos --draw erf kernels --beside v4.safetensors

    Args:
        model: .safetensors, .pth, .pth.tar or .ckpt; exported files have no gradients and no inner values.
        pictures: image files and folders.
        draw: cam, attention, positions, erf, kernels; one or more, cam by default.
        output: folder to write to.
        label: class to explain, by name or number; two with a comma for their difference. By default the answer.
        method: of class maps: grad, hires or layer.
        stage: map of class maps and fields, from 1; by default the last.
        block: block whose attention is drawn, from 1; by default the last of each stage.
        head: attention head, from 0; by default the mean of all.
        window: window whose attention matrix is drawn, row by row from 0; by default the mean of all.
        query: row,column in pixels of the model's input, whose attention is drawn; by default the centre.
        beside: a second checkpoint, whose receptive field and kernels are drawn beside those of the first.
        check: shuffle the last stage's weights and tell how far the class map changes, as a rank correlation.
        json: one line with the files and captions.
    """
    drawn: tuple[Draw, ...] = ("cam",) if draw is None else tuple(draw)
    folder = Path(output)
    _check(model, drawn, folder, beside=beside)
    of_classes = {"label": label, "method": None if method == "grad" else method, "check": check or None}
    of_attention = {"block": block, "head": head, "window": window, "query": query}
    _check_used({**of_classes, **of_attention, "stage": stage}, drawn)
    from hybridvit.data.scan import check_text, find_images
    from hybridvit.explain.drawing import Explaining, draw_positions, side_by_side
    from hybridvit.explain.page import write_drawings

    files = [Path(path) for path in find_images(pictures)]
    check_text(files)
    explained = _classifier(model)
    other = None if beside is None else _classifier(beside)
    asked = Explaining(
        query=_query(query, explained.card.preprocessing.image_size),
        block=block,
        head=head,
        window=window,
        method=method,
        stage=stage,
        target=_target(label, explained),
        check=check,
    )
    sections = _sections(explained, files, drawn, asked)
    whole = _whole(explained, files, drawn, asked)
    if other is not None:
        names = (Path(model).name, Path(beside or "").name)
        whole = side_by_side(whole, _whole(other, files, drawn, asked), whose=names)
    if "positions" in drawn:
        whole += draw_positions(explained, explained.card.preprocessing.image_size)
    if whole:
        sections["The model"] = whole
    given = {"label": label, "stage": stage, "block": block, "head": head, "window": window, "query": query}
    given |= {"method": None if method == "grad" else method, "beside": beside}
    options = [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]
    options += ["--check"] if check else []
    command = shlex.join(["hybridvit", "explain", model, *pictures, "--draw", *drawn, *options])
    lead = f"{explained.card.architecture}, {explained.card.form} form, from {Path(model).name}."
    written = write_drawings(sections, folder, lead=lead, command=command)
    captions = {each.name: each.caption for drawings in sections.values() for each in drawings}
    if json:
        print(dumps({"page": str(written[0]), "files": [str(path) for path in written[1:]], "captions": captions}))
        return
    for heading, drawings in sections.items():
        print(heading, *(f"  {each.title}: {each.caption}" for each in drawings), sep="\n")
    remark(f"{written[0]} and {len(written) - 1} files beside it")


def _check_used(given: Mapping[str, object], drawn: tuple[Draw, ...]) -> None:
    """Raise UsageError for an option of a drawing that is not asked for."""
    for name, value in given.items():
        needs = OF_DRAWINGS.get(name, ("attention",))
        if value is not None and not set(needs) & set(drawn):
            raise UsageError(
                f"--{name} is for {' and '.join(needs)}, but --draw is {' '.join(drawn)}. Add {' or '.join(needs)} to "
                "it, or leave it out."
            )


def _check(model: str, drawn: tuple[Draw, ...], folder: Path, *, beside: str | None) -> None:
    """Raise UsageError for what cannot be drawn."""
    for path in (model, beside):
        if path is not None and is_exported(path):
            raise UsageError(
                f"{path} is an exported file, which gives no gradients and no inner values. Explain the checkpoint "
                "that it was made from."
            )
    if not drawn:
        raise UsageError(
            "There is nothing to draw. Give --draw one or more of attention, positions, erf, cam, kernels."
        )
    if beside is not None and not {"erf", "kernels"} & set(drawn):
        raise UsageError("--beside is for receptive fields and kernels. Add erf or kernels to --draw, or leave it out.")
    check_folder(folder)


def _classifier(path: str) -> "Backbone":
    from hybridvit.checkpoints import load
    from hybridvit.models.backbone import Backbone

    model = load(path)
    if not isinstance(model, Backbone):
        raise UsageError(
            f"{path} answers to the task {model.card.task}, but only classifiers are explained. Give one of those."
        )
    return model.eval()


def _sections(
    model: "Backbone", files: list[Path], draw: tuple[Draw, ...], asked: "Explaining"
) -> dict[str, list["Drawing"]]:
    """The drawings of each picture."""
    from hybridvit.data.preprocess import as_picture, prepare
    from hybridvit.explain.drawing import draw_attention, draw_classes, stacked

    preprocessing = model.card.preprocessing
    sections: dict[str, list[Drawing]] = {}
    for path in files if {"cam", "attention"} & set(draw) else ():
        array = prepare(path, preprocessing)
        image, shown = stacked([array]), as_picture(array, preprocessing)
        drawings = draw_classes(model, image, shown, asked) if "cam" in draw else []
        drawings += draw_attention(model, image, shown, asked) if "attention" in draw else []
        if drawings:
            sections[str(path)] = drawings
    return sections


def _whole(model: "Backbone", files: list[Path], draw: tuple[Draw, ...], asked: "Explaining") -> list["Drawing"]:
    """What two models can be compared by: the field over the pictures, and the kernels."""
    from hybridvit.data.preprocess import prepare
    from hybridvit.explain.drawing import draw_field, draw_kernels, stacked

    drawings: list[Drawing] = []
    if "erf" in draw:
        arrays = [prepare(path, model.card.preprocessing) for path in files[:MOST_PICTURES_IN_A_FIELD]]
        drawings += draw_field(model, stacked(arrays), asked)
    return drawings + (draw_kernels(model) if "kernels" in draw else [])


def _query(text: str | None, image_size: tuple[int, int]) -> tuple[float, float]:
    if text is None:
        return 0.5, 0.5
    try:
        row, column = (int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--query is '{text}', but must be row,column in pixels, such as 120,80.") from None
    height, width = image_size
    if not (0 <= row < height and 0 <= column < width):
        raise UsageError(f"--query is {text}, but the model's input has {height} rows and {width} columns of pixels.")
    return row / height, column / width


def _target(text: str | None, model: "Backbone") -> "Target | None":
    from hybridvit.explain.activation import Target

    if text is None:
        return None
    names = model.card.class_names
    labels = [names.index(word) if word in names else int(word) if word.isdecimal() else -1 for word in text.split(",")]
    for word, label in zip(text.split(","), labels, strict=True):
        if not 0 <= label < model.num_classes:
            near = f" {nearest(word, names)}." if names else ""
            raise UsageError(f"--label has '{word}', but there is no such class.{near} Numbers begin at 0.")
    if len(labels) > 2:
        raise UsageError(f"--label is '{text}', but one class, or the difference of two, can be explained.")
    return Target(label=labels[0], against=labels[1] if len(labels) == 2 else None)
