"""Which model a set of tensors belongs to, and how the two differ."""

import re
from collections.abc import Iterable, Mapping
from functools import cache

import torch
from torch import Tensor, nn

from hybridvit.card import Form, ModelCard
from hybridvit.checkpoints.keymaps import IN_PYRAMID, Naming, family_of
from hybridvit.data.imagenet import NUM_CLASSES, class_names
from hybridvit.errors import CheckpointError
from hybridvit.folding.fold import fold
from hybridvit.models.backbone import Backbone
from hybridvit.models.registry import VARIANTS
from hybridvit.models.whole import WholeModel
from hybridvit.task import find_task

ONE_MODEL = "use the checkpoint and options of one model"
OTHER_VERSION = (
    "another version of this library wrote that form of the model. Load it there, or fold again what it was folded from"
)
MAX_LINES = 12  # the most differences that a message lists
_STEMS = (
    "stem.0.conv.kxk.conv.weight",
    "stem.0.conv.scale.conv.weight",
    "stem.0.conv.weight",
    "stem.weight",
    "stem.proj.weight",
)
FIRST_CONVS = (*_STEMS, *(f"{IN_PYRAMID}{name}" for name in _STEMS))

Shapes = dict[str, tuple[int, ...]]


def skeleton(card: ModelCard, device: str = "meta") -> WholeModel:
    """The model of a card in its form, in eval mode; on the meta device without memory for its weights."""
    with torch.device(device):
        model = find_task(card.task).build(card).eval()
        assert isinstance(model, WholeModel)
        if card.form != "training":
            model = fold(model, released=card.form == "released", image_size=card.fixed_size)
    model.card = card
    return model


def has_unsaved_constants(model: nn.Module) -> bool:
    """Whether it has buffers that its state does not hold, so that a file does not bring them."""
    return not model.state_dict().keys() >= {name for name, _ in model.named_buffers()}


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Name -> shape."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def options_of(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """The options that can be read off the tensors. Windows cannot: no weight depends on them."""
    options = {"num_classes": num_classes_of(tensors), "in_chans": 3}
    for name in FIRST_CONVS:
        if name in tensors and tensors[name].ndim == 4 and tensors[name].numel():
            options["in_chans"] = tensors[name].shape[1]
    return options


def num_classes_of(tensors: Mapping[str, Tensor]) -> int:
    """The outputs of the classifier; 0 without one."""
    weight = tensors.get(Backbone.classifier[0])
    return len(weight) if weight is not None and weight.ndim == 2 and weight.numel() else 0


def class_names_of(tensors: Mapping[str, Tensor], naming: Naming) -> tuple[str, ...]:
    """The classes of weights, in our names, from a file in `naming`: published ones with 1,000 are ImageNet-1k's."""
    if naming == "ours" or num_classes_of(tensors) != NUM_CLASSES:
        return ()
    return class_names()


def best_match(tensors: Mapping[str, Tensor], form: Form, hint: str = "") -> tuple[str, int]:
    """The registered architecture whose names and shapes are most like those of `tensors`, and how many are equal.

    The tensors of some variants differ in nothing (fastervit_4_21k_384 is fastervit_4_21k_224 with larger windows):
    of these it is the one that `hint` names, such as a file's name, else the first in the registry.
    """
    found, options = shapes_of(tensors), tuple(sorted(options_of(tensors).items()))

    def similarity(architecture: str) -> float:
        # Always of the training form: it is cheaper to build, and the FFN and the head tell all variants apart.
        expected = _expected(architecture, "training", options)
        equal = num_equal(found, expected)
        return equal / (len(found) + len(expected) - equal)

    family = family_of(tensors)
    names = [name for name, variant in VARIANTS.items() if variant.family == family]
    depths = _depths(tensors)
    # One of the same depths that is equal leaves no question, and the others need not be built.
    same = [name for name in names if VARIANTS[name].config.depths == depths]
    best = [name for name in same if _expected(name, form, options) == found]
    if not best:
        similarities = {name: similarity(name) for name in names}
        highest = max(similarities.values())
        best = [name for name, value in similarities.items() if value == highest]
    # The windows of a folded file are tensors, so its own form decides. Of the names in `hint` the longest is meant:
    # fastervit_4 is part of fastervit_4_21k_224.
    scores = {name: num_equal(found, _expected(name, form, options)) for name in best}
    chosen = max(best, key=lambda name: (scores[name], len(name) if name in hint else 0))
    return chosen, scores[chosen]


def _depths(names: Iterable[str]) -> tuple[int, ...]:
    """The number of blocks of each stage, by names such as `stages.0.blocks.1.mixer.norm.weight`; () for others."""
    counts: dict[int, int] = {}
    for name in names:
        if match := re.match(r"(?:.+\.)?stages\.(\d{1,3})\.blocks\.(\d{1,3})\.", name):
            stage, block = int(match[1]), int(match[2])
            counts[stage] = max(counts.get(stage, 0), block + 1)
    return tuple(counts[stage] for stage in sorted(counts))


@cache
def _expected(architecture: str, form: Form, options: tuple[tuple[str, int], ...]) -> Shapes:
    return shapes_of(skeleton(ModelCard(architecture=architecture, options=dict(options), form=form)).state_dict())


def num_equal(found: Shapes, expected: Shapes) -> int:
    """How many names the two share with equal shapes."""
    return sum(expected.get(name) == shape for name, shape in found.items())


def check_names(
    source: str,
    found: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    asked: str,
    form: Form,
    *,
    fix: str = ONE_MODEL,
) -> None:
    """Demand that the two have the same names, shapes and kinds of number.

    Raises CheckpointError with the differences (-: of the model, not in the file; +: of the file, not in the model),
    and with the registered architecture that fits better, if there is one, else with `fix`.
    """
    have, want = shapes_of(found), shapes_of(expected)
    differing = [name for name in want | have if have.get(name) != want.get(name)]
    if differing:
        lines = [
            f"  {sign} {name} {shapes[name]}"
            for name in differing
            for sign, shapes in (("-", want), ("+", have))
            if name in shapes
        ]
        equal = num_equal(have, want)
        best, score = best_match(found, form, asked)
        # Where both have all keys of the file, `best` is the smaller model.
        if best != asked and (score > equal or score == len(have)):
            advice = f"It looks like {best} ({score}/{len(have)} keys), you asked for {asked}: create that one instead."
        else:
            advice = f"It has {equal} of the {len(want)} keys of {asked}: {fix}."
        more = [f"  and {len(lines) - MAX_LINES} more"] if len(lines) > MAX_LINES else []
        raise CheckpointError(
            "\n".join([f"{source} does not fit. {advice} Differences (- model, + file):", *lines[:MAX_LINES], *more])
        )
    for name, tensor in found.items():
        if tensor.is_floating_point() != expected[name].is_floating_point():
            raise CheckpointError(
                f"{source}: '{name}' holds {tensor.dtype}, but the model has {expected[name].dtype} there. The file is "
                "damaged or of another model."
            )
