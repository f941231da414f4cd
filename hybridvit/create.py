"""Build a model by name."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from hybridvit.build import build, configured
from hybridvit.card import MIN_SIDE_PX, with_tuples
from hybridvit.checkpoints import fetch, load_weights, read_tensors
from hybridvit.checkpoints.keymaps import form_of, naming_of, start_of, to_ours
from hybridvit.checkpoints.matching import class_names_of, num_classes_of
from hybridvit.errors import CheckpointError, UsageError
from hybridvit.folding.fold import fold
from hybridvit.models.backbone import Backbone, FeaturePyramid
from hybridvit.models.registry import find_variant


def create_model(
    name: str,
    *,
    pretrained: bool | str | Path = False,
    features_only: bool = False,
    out_indices: Sequence[int] | None = None,
    folded: bool = False,
    image_size: int | tuple[int, int] | None = None,
    **options: Any,
) -> nn.Module:
    """A model by name, in training mode (in eval mode if `folded`).

    Args:
        name: one of `hybridvit.list_models()`.
        pretrained: True for the default published weights, a tag ("apple_dist_in1k") for others, or a path to a file
            of ours, Apple's, NVIDIA's or timm's (for swin_tiny_hat, timm's Swin-T), as `hybridvit.load` takes it.
            Another number of classes than the file's gets a new classifier; another number of channels an adapted stem.
        features_only: return a pyramid that gives a list of feature maps, of strides 4, 8, 16, 32.
        out_indices: which stages the pyramid gives; by default all.
        folded: return the inference form.
        image_size: the size in pixels that images are meant to be prepared to, a side or (height, width); it goes on
            the card. By default that of the variant, or of the weights. The model takes any size in any case.
        **options: `num_classes`, `in_chans`, `global_pool`, `drop_rate`, `drop_path_rate`, and every field of the
            family's config, such as `mixers` or `ffn_kernel` of `FastViTConfig`, `windows` of `FasterViTConfig`.

    Raises:
        UsageError: for an unknown name, option, tag or value, and for `windows` that images of this size never fill.
        CheckpointError: for weights that are missing or do not fit.
    """
    if out_indices is not None and not features_only:
        raise UsageError(
            "out_indices selects the maps of a pyramid, but features_only is False. Set features_only=True."
        )
    for option in ("num_classes", "global_pool", "drop_rate"):
        if features_only and option in options:
            raise UsageError(f"{option} belongs to the head, and features_only leaves the head out. Set one of them.")
    size = None if image_size is None else _height_and_width(image_size)
    model = build(name, **options)
    variant = find_variant(name)
    config = configured(variant, with_tuples(options))
    config.check_image_size(options, *(size or variant.preprocessing.image_size))
    if pretrained is not False:
        model = _pretrained(model, pretrained, accepts_folded=folded)
    if size is not None:
        preprocessing = dataclasses.replace(model.card.preprocessing, image_size=size)
        model.card = dataclasses.replace(model.card, preprocessing=preprocessing)
    result: nn.Module = FeaturePyramid(model, out_indices) if features_only else model
    return fold(result.eval()) if folded else result


def _height_and_width(image_size: object) -> tuple[int, int]:
    sides = tuple(image_size) if isinstance(image_size, tuple | list) else (image_size, image_size)
    if len(sides) != 2 or any(type(side) is not int or side < MIN_SIDE_PX for side in sides):
        raise UsageError(
            f"image_size is {image_size!r}, but must be a number of pixels from {MIN_SIDE_PX}, or (height, width)."
        )
    return sides


@dataclass(frozen=True, kw_only=True)
class FoundWeights:
    """A local file of weights, and where it is from."""

    path: Path
    source: str
    licence: str


def find_weights(
    name: str, choice: bool | str | Path, *, option: str = "--pretrained FILE, in Python pretrained='FILE'"
) -> FoundWeights:
    """The file that `pretrained=choice` means for the model `name`: published weights are fetched once.

    `option` says how a file is passed instead, for the message of what cannot be fetched.

    Raises:
        UsageError: for what is neither a tag nor an existing file.
        CheckpointError: for published weights that cannot be had.
    """
    variant = find_variant(name)
    published = dict(variant.published.weights)
    tag = next(iter(published), None) if choice is True else str(choice)
    if tag in published:
        weights = published[tag]
        source = f"{weights.hub_id}/{weights.file}" if weights.file else weights.hub_id
        try:
            path = fetch(weights.hub_id, file=weights.file)
        except CheckpointError as error:
            raise CheckpointError(f"{error} A file is passed with {option}.") from error
        return FoundWeights(path=path, source=source, licence=weights.licence)
    path = Path(tag or "").expanduser()
    if tag and path.exists():
        return FoundWeights(path=path, source=tag, licence=variant.published.licence_of(path.name))
    known = f"Published weights: {', '.join(published)}" if published else "Nothing is published of this model"
    if choice is True:
        raise UsageError(f"There are no published weights of {name}. Give the path of a file, or train from scratch.")
    raise UsageError(f"No weights '{choice}' for {name}: it is neither a tag nor an existing file. {known}.")


def _pretrained(model: Backbone, choice: bool | str | Path, *, accepts_folded: bool) -> Backbone:
    """`model` with published weights or a file's, and a card that says where they come from.

    Folded files need a folded model: with `accepts_folded` a folded copy of `model` takes them.
    """
    variant = find_variant(model.card.architecture)
    found = find_weights(variant.name, choice)
    path, source, licence = found.path, found.source, found.licence
    tensors = read_tensors(path, say=False).tensors  # load_weights says it
    naming = naming_of(tensors, path)
    tensors = to_ours(tensors, naming, path)
    same_classes = 0 < num_classes_of(tensors) == model.num_classes
    if accepts_folded and form_of(tensors) != "training":
        model = fold(model.eval(), released=form_of(tensors) == "released")
    report = load_weights(model, path, reset_head=not same_classes, adapt_input=True)
    known_card = report.card or dataclasses.replace(
        model.card, licence=licence, class_names=class_names_of(tensors, naming) if same_classes else ()
    )
    model.card = dataclasses.replace(
        model.card,
        preprocessing=known_card.preprocessing.for_channels(model.in_chans),
        class_names=known_card.class_names if same_classes else (),
        source=f"{source} ({start_of(naming)})" if start_of(naming) else source,
        licence=known_card.licence,
    )
    return model
