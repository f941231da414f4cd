"""Build a model by name."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from hybridvit.build import configured, described
from hybridvit.card import as_size
from hybridvit.errors import UsageError
from hybridvit.folding.fold import fold
from hybridvit.models.backbone import Backbone
from hybridvit.models.backbone_maps import FeaturePyramid
from hybridvit.models.registry import VARIANTS
from hybridvit.models.whole import WholeModel
from hybridvit.models.with_head import WithHead
from hybridvit.pretrained import with_pretrained_backbone, with_pretrained_weights
from hybridvit.task import DEFAULT_TASK, Task, find_task

NOTHING: Mapping[str, Any] = {}


def create_model(
    name: str,
    *,
    task: str = DEFAULT_TASK,
    head: str | None = None,
    head_options: Mapping[str, Any] = NOTHING,
    pretrained: bool | str | Path = False,
    features_only: bool = False,
    out_indices: Sequence[int] | None = None,
    folded: bool = False,
    image_size: int | tuple[int, int] | None = None,
    **options: Any,
) -> nn.Module:
    """A model by name, in training mode (in eval mode if `folded`).

    Args:
        name: one of `hybridvit.list_models()`; with a head also a model of timm that has stages.
        task: what it is to answer; a key of `hybridvit.task.TASKS`.
        head: which of the task's heads, by default its first; of a task without any, FastViT's option of that name.
        head_options: the head's own options.
        pretrained: True for the default published weights, a tag ("apple_dist_in1k") for others, or a path to a file
            of ours, Apple's, NVIDIA's or timm's (for swin_tiny_hat, timm's Swin-T), as `hybridvit.load` takes it.
            Another number of classes than the file's gets a new classifier; another number of channels an adapted stem.
            A projection into the space of a text tower is never made anew.
            With a head these are the backbone's weights, or a checkpoint of a model with the same head.
        features_only: return a pyramid that gives a list of feature maps, of strides 4, 8, 16, 32 (and 64, where a
            variant has five stages).
        out_indices: which stages the pyramid gives; by default all.
        folded: return the inference form.
        image_size: the size in pixels that images are meant to be prepared to, a side or (height, width); it goes on
            the card. By default that of the variant, of the task, or of the weights. The model takes any size in any
            case.
        **options: `num_classes`, `in_chans`, `global_pool`, `drop_rate`, `drop_path_rate`, and every field of the
            family's config, such as `mixers` or `ffn_kernel` of `FastViTConfig`, `windows` of `FasterViTConfig`.

    Raises:
        UsageError: for an unknown name, option, tag or value, and for `windows` that images of this size never fill.
        CheckpointError: for weights that are missing or do not fit.
    """
    learnt = find_task(task)
    _check_pyramid(learnt, features_only, out_indices, options)
    size = None if image_size is None else as_size(image_size)
    card = described(name, learnt, head=head, head_options=head_options, options=options)
    model = learnt.build(card)
    assert isinstance(model, WholeModel)
    if name in VARIANTS:
        variant = VARIANTS[name]
        fields = {key: value for key, value in card.options.items() if key != "num_classes"}
        seen = learnt.prepared(variant.preprocessing, size).image_size
        configured(variant, fields).check_image_size(fields, *seen)
    if pretrained is not False:
        if isinstance(model, WithHead):
            model = with_pretrained_backbone(model, pretrained)
        else:
            assert isinstance(model, Backbone)
            model = with_pretrained_weights(model, pretrained, accepts_folded=folded, keeps_head=not features_only)
    model.card = dataclasses.replace(model.card, preprocessing=learnt.prepared(model.card.preprocessing, size))
    result: nn.Module = FeaturePyramid(model, out_indices) if isinstance(model, Backbone) and features_only else model
    return fold(result.eval()) if folded else result


def _check_pyramid(task: Task, features_only: bool, out_indices: object, options: Mapping[str, Any]) -> None:
    if out_indices is not None and not features_only:
        raise UsageError(
            "out_indices selects the maps of a pyramid, but features_only is False. Set features_only=True."
        )
    if features_only and task.heads:
        raise UsageError(
            f"features_only leaves the head out, and the task '{task.name}' is learnt by one. Set one of them."
        )
    for option in ("num_classes", "global_pool", "drop_rate"):
        if features_only and option in options:
            raise UsageError(f"{option} belongs to the head, and features_only leaves the head out. Set one of them.")
