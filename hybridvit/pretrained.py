"""The weights that a new model begins with: published ones, fetched once, or those of a file."""

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from hybridvit.build import build
from hybridvit.card import ModelCard
from hybridvit.checkpoints import fetch, load_weights, read_tensors
from hybridvit.checkpoints.keymaps import form_of, naming_of, start_of, to_ours
from hybridvit.checkpoints.matching import class_names_of, num_classes_of
from hybridvit.checkpoints.metadata import card_of
from hybridvit.checkpoints.names import Known
from hybridvit.errors import CheckpointError, UsageError, nearest, one_line
from hybridvit.folding.fold import fold
from hybridvit.hub import local_file
from hybridvit.models.backbone import Backbone
from hybridvit.models.backbone_maps import FeaturePyramid, LastMap
from hybridvit.models.published import Weights
from hybridvit.models.pyramid import Pyramid
from hybridvit.models.registry import VARIANTS, find_variant
from hybridvit.models.with_head import WithHead

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FoundWeights:
    """A local file of weights, and where it is from."""

    path: Path
    source: str
    weights: Weights | None  # what is published of them; None for a file that nobody published

    @property
    def licence(self) -> str:
        """That of the published weights; empty for others."""
        return self.weights.licence if self.weights else ""


def find_weights(
    name: str, choice: bool | str | Path, *, option: str = "--pretrained FILE, in Python pretrained='FILE'"
) -> FoundWeights:
    """The file that `pretrained=choice` means for the model `name`: published weights, and hf://, are fetched once.

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
        return FoundWeights(path=path, source=source, weights=weights)
    path = local_file(tag or "").expanduser()
    if tag and path.exists():
        return FoundWeights(path=path, source=tag, weights=variant.published.weights_of(path.name))
    known = f"Published weights: {', '.join(published)}" if published else "Nothing is published of this model"
    if choice is True:
        raise UsageError(f"There are no published weights of {name}. Give the path of a file, or train from scratch.")
    raise UsageError(f"No weights '{choice}' for {name}: it is neither a tag nor an existing file. {known}.")


def with_pretrained_weights(
    model: Backbone, choice: bool | str | Path, *, accepts_folded: bool, keeps_head: bool = True
) -> Backbone:
    """`model` with published weights or a file's, and a card that says where they come from.

    Folded files need a folded model: with `accepts_folded` a folded copy of `model` takes them. Raises CheckpointError
    for an image tower that would answer with a projection that nobody trained, unless its head is not kept.
    """
    variant = find_variant(model.card.architecture)
    found = find_weights(variant.name, choice)
    path, source = found.path, found.source
    file = read_tensors(path, say=False)  # load_weights says it
    weights, tensors = found.weights or variant.published.weights_of(path.name, file.prefix), file.tensors
    naming = naming_of(tensors, path)
    tensors = to_ours(tensors, naming, path)
    same_classes = 0 < num_classes_of(tensors) == model.num_classes
    if keeps_head and not same_classes:
        _check_classifier(model, source, num_classes_of(tensors))
    if accepts_folded and form_of(tensors) != "training":
        model = fold(model.eval(), released=form_of(tensors) == "released")
    report = load_weights(model, path, reset_head=not same_classes, adapt_input=True)
    known_card = report.card or dataclasses.replace(
        model.card,
        preprocessing=variant.prepared_for(weights),
        licence=weights.licence if weights else "",
        class_names=class_names_of(tensors, naming) if same_classes else (),
    )
    if known_card.licence_notice:
        log.warning("%s: %s", source, known_card.licence_notice)
    model.card = dataclasses.replace(
        model.card,
        preprocessing=known_card.preprocessing.for_channels(model.in_chans),
        class_names=known_card.class_names if same_classes else (),
        source=f"{source} ({start_of(naming)})" if start_of(naming) else source,
        licence=known_card.licence,
    )
    return model


def _check_classifier(model: Backbone, source: str, found: int) -> None:
    """Refuse to make up the projection of an image tower: only a classifier that was asked for may begin anew."""
    width = find_variant(model.card.architecture).published.embedding_width
    if width is not None and "num_classes" not in model.card.options:
        raise CheckpointError(
            f"{source} has {f'{found} outputs' if found else 'no projection'}, but {model.card.architecture} answers "
            f"with a projection to {width}, and a random one means nothing. Pass num_classes=0 for the tower alone, or "
            "num_classes=N for a new classifier of N classes."
        )


def with_pretrained_backbone(model: WithHead, choice: bool | str | Path) -> WithHead:
    """`model`, a fresh one, with published weights in its backbone, or with those of a checkpoint with the same head.

    Its card then says where they come from, and how their images were prepared. Of a checkpoint of other classes the
    layers of the classes stay as they are. Raises as `find_weights` and `load_weights`.
    """
    path = None if choice is True else local_file(str(choice)).expanduser()
    if path is not None and path.exists():
        file = read_tensors(path, say=False)
        card = card_of(file)
        if card is not None and card.head:
            return _with_weights_of(card, path, model)
    start = _started_pyramid(model, choice)
    model.pyramid.load_state_dict(start.state_dict())
    known = start.card
    model.card = dataclasses.replace(
        model.card, preprocessing=known.preprocessing, source=f"backbone: {known.source}", licence=known.licence
    )
    return model


def _with_weights_of(card: ModelCard, path: Path, model: WithHead) -> WithHead:
    """`model` with all weights of a checkpoint of a model with a head, but those of other classes."""
    own = model.card
    if (card.task, card.head) != (own.task, own.head):
        raise UsageError(
            f"{path} holds a {card.head} of the task '{card.task}', not a {own.head} of '{own.task}'. Give weights of "
            f"the backbone, or create the model with task='{card.task}' and head='{card.head}'."
        )
    same_classes = card.options.get("num_classes") == model.num_classes
    load_weights(model, path, reset_head=not same_classes, adapt_input=True)
    known = (card.class_names, card.class_facts) if same_classes else ((), {})
    model.card = dataclasses.replace(
        own,
        preprocessing=card.preprocessing.for_channels(model.in_chans),
        class_names=known[0],
        class_facts=known[1],
        source=str(path),
        licence=card.licence,
    )
    return model


def _started_pyramid(model: WithHead, choice: bool | str | Path) -> Pyramid:
    """A pyramid like the model's, with weights, and the card that came with them."""
    card = model.card
    options = {key: value for key, value in card.options.items() if key != "num_classes"}
    if card.architecture in VARIANTS:
        whole = build(card.architecture, **options)
        whole = with_pretrained_weights(whole, choice, accepts_folded=False, keeps_head=False)
        like = model.pyramid
        return FeaturePyramid(whole, like.out_indices) if isinstance(like, FeaturePyramid) else LastMap(whole)
    from hybridvit.models.timm_pyramid import TimmPyramid

    name = card.architecture
    path = local_file(str(choice)).expanduser() if choice is not True else Path()
    if choice is not True and not path.exists():
        raise UsageError(
            f"No weights '{choice}' for {name}: it is no existing file. Tags of timm stand behind the model's name, "
            f"{name.partition('.')[0]}.TAG with pretrained=True."
        )
    tensors = timm_weights(name, timm_file(name) if choice is True else path)
    start = TimmPyramid(name, pretrained=True, pretrained_cfg_overlay={"state_dict": tensors}, **options)
    start.maps.pretrained_cfg = cast(Any, {})  # else a second copy of the weights
    source = f"timm/{name}" if choice is True else str(choice)
    start.card = dataclasses.replace(start.card, source=source, licence=str(timm_config(name).license or ""))
    return start


def timm_config(name: str) -> Any:
    """What timm says of a model and its weights. Raises UsageError for a tag that it does not have."""
    import timm

    tags = timm.list_pretrained(f"{name.partition('.')[0]}.*")
    if "." in name and name not in tags:
        raise UsageError(f"timm has no weights of the name '{name}'. {nearest(name, tags)}.")
    return timm.get_pretrained_cfg(name)


def timm_file(name: str) -> Path:
    """The file of a timm model's published weights, fetched once. Raises UsageError or CheckpointError without one."""
    config = timm_config(name)
    source = config.hf_hub_id or config.url
    if not source:
        raise UsageError(f"timm has no published weights of {name}.")
    return fetch(source, file=(config.hf_hub_id and config.hf_hub_filename) or "")


def timm_weights(name: str, path: Path) -> dict[str, Tensor]:
    """The weights in a file of a timm model, all of which fit it. Raises CheckpointError for others."""
    import timm

    config = timm_config(name)
    tensors = dict(read_tensors(path, known=is_whole(config)).tensors)
    classifier = config.classifier[0] if isinstance(config.classifier, tuple | list) else config.classifier
    outputs = tensors.get(f"{classifier}.weight")
    overlay = {"state_dict": dict(tensors), "num_classes": config.num_classes if outputs is None else len(outputs)}
    try:  # a pyramid takes whatever fits, so that what does not is found by the whole model alone
        timm.create_model(name, pretrained=True, num_classes=overlay["num_classes"], pretrained_cfg_overlay=overlay)
    except (RuntimeError, KeyError, AttributeError, TypeError, ValueError) as error:  # timm's filters index freely
        raise CheckpointError(
            f"{path} does not fit {name}: {one_line(error)}. Give the file that belongs to it, or the name that "
            "belongs to the file."
        ) from error
    return tensors


def is_whole(config: Any) -> Known:
    """Whether names are those of a model of timm: both its first and its last layer are among them."""
    ends = (config.first_conv, config.classifier)
    layers = [layer for end in ends for layer in (end if isinstance(end, tuple | list) else (end,)) if layer]
    return lambda names: bool(layers) and {f"{layer}.weight" for layer in layers} <= set(names)
