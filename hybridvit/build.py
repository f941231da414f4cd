"""A model from its name and options, or from a card, on any device and without weights."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from hybridvit.annotations import converted
from hybridvit.card import ModelCard, with_tuples
from hybridvit.errors import UnknownOptionError, UsageError, nearest
from hybridvit.models.backbone import Backbone
from hybridvit.models.backbone_maps import FeaturePyramid, LastMap
from hybridvit.models.family import FamilyConfig
from hybridvit.models.pyramid import Pyramid
from hybridvit.models.registry import FAMILIES, VARIANTS, Variant, find_variant
from hybridvit.models.with_head import Head, WithHead
from hybridvit.task import TASKS, Task, find_task

WORDS_OF_OTHERS = {
    "inference_mode": "folded=True",
    "img_size": "image_size",
    "input_size": "image_size",
    "resolution": "image_size",
    "fork_feat": "features_only",
    "checkpoint_path": "pretrained",
    "layers": "depths",
    "embed_dims": "widths",
    "dim": "widths",
    "in_dim": "stem_width",
    "mlp_ratios": "mlp_ratio",
    "token_mixers": "mixers",
    "hat": "mixers",
    "window_size": "windows",
    "ct_size": "carrier_size",
    "do_propagation": "propagate",
    "repmixer_kernel_size": "mixer_kernel",
    "act_layer": "activation",
    "norm_layer": "norm",
    "layer_scale": "layer_scale_init",
    "layer_scale_init_value": "layer_scale_init",
    "layer_scale_conv": "conv_layer_scale_init",
}
"""What the code of Apple, NVIDIA and timm calls an option, and what it is called here."""

OF_LOADING = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")  # timm's
MAPS_OF_HEADS = 4  # that a head reads if it says nothing else: a fifth stage is left out
OF_CLASSIFIERS = ("global_pool", "drop_rate")
OF_CREATION = frozenset(
    {"folded", "image_size", "features_only", "pretrained"}
)  # options of create_model, not of models


def build(name: str, **options: Any) -> Backbone:
    """The randomly initialised training form of a variant; see `hybridvit.create_model`."""
    variant = find_variant(name)
    model_class = _class_of(variant.family)
    in_config = {field.name for field in dataclasses.fields(variant.config)}
    of_class = {
        parameter for parameter in inspect.signature(model_class).parameters if parameter not in ("config", "card")
    }
    for option in options:
        if option not in in_config | of_class:
            raise UnknownOptionError(f"'{option}' is no option of {name}. {_advice(option, in_config | of_class)}")
    options = with_tuples(options)
    config = configured(variant, options)
    config.check_applicable([key for key in options if key in in_config])
    preprocessing = variant.preprocessing.for_channels(options.get("in_chans", 3))
    card = ModelCard(architecture=name, options=options, preprocessing=preprocessing)
    of_model = {"num_classes": variant.num_outputs} | {key: options[key] for key in options if key in of_class}
    return model_class(config, card=card, **of_model)


def described(
    name: str, task: Task, *, head: str | None, head_options: Mapping[str, Any], options: Mapping[str, Any]
) -> ModelCard:
    """The card of a model that is to be built: what a user asks for, checked and completed.

    Raises UsageError for a head that the task does not have and for a value of the wrong type, UnknownOptionError for
    an option that the head does not have.
    """
    given = dict(with_tuples(options))
    if not task.heads:
        if head and _is_option(name, "head"):  # FastViT's ablations of its classifier
            given["head"], head = head, None
        if head or head_options:
            having = [each for each in TASKS if find_task(each).heads]
            raise UsageError(
                f"head is {head or head_options!r}, but models of the task '{task.name}' answer with their backbone's "
                f"classifier. Leave it out, or choose a task whose models have heads: {', '.join(having) or 'none'}."
            )
        return ModelCard(architecture=name, task=task.name, options=given)
    chosen = head or next(iter(task.heads))
    return ModelCard(
        architecture=name,
        task=task.name,
        head=chosen,
        head_options=_head_options(task, chosen, head_options),
        options=given | {"num_classes": given.get("num_classes", task.num_classes)},
    )


def head_config(card: ModelCard) -> Any:
    """The options of a card's head, as the value of the head's own dataclass. Raises as `described`."""
    task = find_task(card.task)
    return task.heads[card.head](**_head_options(task, card.head, card.head_options))


def _head_options(task: Task, head: str, given: Mapping[str, Any]) -> dict[str, Any]:
    if head not in task.heads:
        raise UsageError(f"head is '{head}', which the task '{task.name}' does not have. {nearest(head, task.heads)}.")
    types = {field.name: field.type for field in dataclasses.fields(task.heads[head])}
    for option in given:
        if option not in types:
            raise UnknownOptionError(f"'{option}' is no option of the head {head}. {nearest(option, sorted(types))}.")
    fix = "Correct it in head_options."
    return {
        option: with_tuples(converted(value, types[option], name=f"{head}'s {option}", fix=fix))
        for option, value in given.items()
    }


def with_head(
    card: ModelCard,
    make: Callable[[Sequence[int]], Head],
    *,
    last_map: bool = False,
    most_maps: int = MAPS_OF_HEADS,
) -> WithHead:
    """The training form of the model with a head that a card describes; `make` is given the channels of the maps.

    With `last_map` there is but the map that the backbone's classifier would read; of timm's all four come, the
    coarsest last. A head that can read a map of stride 64 asks for 5 as `most_maps`, and is given it where the backbone
    has a fifth stage. The model's card is this one, with the preprocessing of the backbone. Raises UsageError for a
    backbone that is neither one of this package nor one of timm, or has no maps of strides 4, 8, 16 and 32.
    """
    options = dict(card.options)
    num_classes = options.pop("num_classes")
    if type(num_classes) is not int or num_classes < 1:
        raise UsageError(f"num_classes is {num_classes!r}, but must be a whole number from 1.")
    pyramid = build_pyramid(card.architecture, last_map=last_map, most_maps=most_maps, **options)
    model = WithHead(pyramid, make(pyramid.channels), num_classes=num_classes)
    model.card = dataclasses.replace(card, preprocessing=pyramid.card.preprocessing)
    return model


def with_head_options(model: WithHead, options: Mapping[str, Any]) -> WithHead:
    """The model in eval mode with other options of its head, for use: those that change no weights.

    Raises UsageError for options that do, for a model that is folded, and as `described`.
    """
    card = dataclasses.replace(model.card, head_options={**model.card.head_options, **options})
    if card.form == "folded":
        raise UsageError(
            "head_options are given, but the model is folded, and its head cannot be built anew. Use the checkpoint "
            "that it was folded from."
        )
    other = find_task(card.task).build(card)
    assert isinstance(other, WithHead)
    weights, wanted = model.state_dict(), other.state_dict()
    changed = [name for name in wanted if name not in weights or weights[name].shape != wanted[name].shape]
    if changed or len(weights) != len(wanted):
        raise UsageError(
            f"head_options {dict(options)} change the weights of the head {card.head}, which were learnt with others. "
            "Give those alone that change none, such as score_threshold, or train with them."
        )
    other.load_state_dict(weights)
    other.card = card
    return other.eval()


def build_pyramid(name: str, *, last_map: bool = False, most_maps: int = MAPS_OF_HEADS, **options: Any) -> Pyramid:
    """The four feature maps of a variant of this package, or of a timm model, randomly initialised.

    With `most_maps` of 5, all five of a variant that has so many. With `last_map`, of a variant of this package that
    map alone which its classifier would read.

    Raises UsageError for an unknown name and for a model without these maps, UnknownOptionError for unknown options.
    """
    if name in VARIANTS:
        for option in OF_CLASSIFIERS:
            if option in options:
                raise UsageError(f"{option} belongs to the classifier of {name}, which a model with a head has not.")
        backbone = build(name, **options)
        return LastMap(backbone) if last_map else FeaturePyramid(backbone, range(len(backbone.stages))[:most_maps])
    from hybridvit.models.timm_pyramid import TimmPyramid, is_timm  # seconds: timm

    if not is_timm(name):
        raise UsageError(
            f"Unknown backbone '{name}'. {nearest(str(name), VARIANTS)}. All of them: hybridvit.list_models(), and "
            "those of timm.list_models() that have stages."
        )
    for option in OF_LOADING:
        if option in options:  # of a card too, which may be hostile: timm would open any file that it names
            raise UsageError(f"{option} is no option of a backbone: weights are chosen by `pretrained`. Leave it out.")
    return TimmPyramid(name, **options)


def _is_option(name: str, option: str) -> bool:
    return name in VARIANTS and option in {field.name for field in dataclasses.fields(VARIANTS[name].config)}


def _advice(option: str, known: set[str]) -> str:
    word = WORDS_OF_OTHERS.get(option, "")
    if word.partition("=")[0] in known:
        return f"Other libraries' '{option}' is {word} here."
    if word.partition("=")[0] in OF_CREATION:
        return f"Other libraries' '{option}' is {word} of create_model here."
    return f"{nearest(option, sorted(known))}."


def _class_of(family: str) -> type[Backbone]:
    module, _, name = FAMILIES[family].model.partition(":")
    model_class = getattr(import_module(module), name)
    assert issubclass(model_class, Backbone)
    return model_class


def configured(variant: Variant, options: dict[str, Any]) -> FamilyConfig:
    """The variant's config with those of `options` that are fields of it."""
    fields = {field.name for field in dataclasses.fields(variant.config)}
    return dataclasses.replace(variant.config, **{key: value for key, value in options.items() if key in fields})
