"""The teacher of a distillation: a timm model or one of this package, frozen and outside of the run's checkpoints."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn

from hybridvit import checkpoints
from hybridvit.build import build
from hybridvit.card import IMAGENET_MEAN, IMAGENET_STD, ModelCard
from hybridvit.checkpoints.files import check_file
from hybridvit.checkpoints.sniff import WEIGHT_ENDINGS
from hybridvit.create import create_model
from hybridvit.data.class_names import difference
from hybridvit.digest import digest
from hybridvit.errors import CheckpointError, UsageError, nearest, one_line
from hybridvit.folding.fold import fold
from hybridvit.hub import local_file
from hybridvit.models.registry import VARIANTS
from hybridvit.models.whole import WholeModel
from hybridvit.pretrained import find_weights, is_whole, timm_file
from hybridvit.task import Place
from hybridvit.tasks.classify.config import DistillConfig


@dataclass(frozen=True, kw_only=True)
class TeacherModel:
    """A model that can teach, and what there is to know of it."""

    name: str  # as messages call it
    module: nn.Module
    num_classes: int
    class_names: tuple[str, ...] = ()  # empty if unknown
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    image_size: tuple[int, int] | None = None  # height, width in pixels that it was trained on


TeacherFinder = Callable[[DistillConfig, int], TeacherModel]
"""From the recipe's keys and the number of classes of the images."""


class Teacher:
    """Answers to the student's batches. Never trained, never wrapped, never part of a state dict."""

    def __init__(
        self,
        found: TeacherModel,
        *,
        card: ModelCard,
        place: Place,
    ) -> None:
        """Raises UsageError if it has other classes than the images, or takes no images of their size."""
        preprocessing = card.preprocessing
        _check_classes(found, card.class_names)
        self.fingerprint = _digest(found.module)
        self._place = place
        self._module = found.module.eval().requires_grad_(False)
        self._module.to(device=place.device, memory_format=place.layout)  # type: ignore[call-overload]  # torch's stub lacks this form
        if len(found.mean) != len(preprocessing.mean):
            raise UsageError(
                f"The teacher {found.name} takes images of {len(found.mean)} channels, the run's have "
                f"{len(preprocessing.mean)}. Choose another teacher."
            )
        # The student's pixels are (p - mean) / std; the teacher's are these, times `gain`, plus `shift`.
        pairs = zip(preprocessing.mean, preprocessing.std, found.mean, found.std, strict=True)
        gains_and_shifts = [(std / own_std, (mean - own_mean) / own_std) for mean, std, own_mean, own_std in pairs]
        self._differs = any(pair != (1.0, 0.0) for pair in gains_and_shifts)
        self._gain, self._shift = torch.tensor(gains_and_shifts, device=place.device)[:, :, None, None].unbind(1)
        _check_size(self, found, preprocessing.image_size, len(card.class_names))

    def logits(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """The teacher's answers to images prepared for the student, in the run's precision, without gradient."""
        if self._differs:
            images = images * self._gain + self._shift
        with torch.no_grad(), self._place.autocast():
            logits: Tensor = self._module(images)
        return logits.float()


def find_teacher(config: DistillConfig, num_classes: int) -> TeacherModel:
    """The teacher that the recipe names, with its weights.

    A file, or the name of a model of this package (both folded, which is exact and faster), or a timm model with or
    without a tag. Weights are loaded strictly, and no code inside a file runs. Raises UsageError for an unknown name,
    with the nearest ones, CheckpointError for weights that are missing, unsafe or do not fit.
    """
    name = config.teacher
    if _is_file(name):
        if config.teacher_weights:
            raise UsageError(
                f"Recipe keys 'distill.teacher' ({name}) and 'distill.teacher_weights' ({config.teacher_weights}) both "
                "name a file. Leave the second out, or give the name of a timm model as the first."
            )
        return _of_this_package(name, checkpoints.load(name))
    if name in VARIANTS:
        path = local_file(config.teacher_weights) if config.teacher_weights else _published(name)
        return _of_this_package(name, checkpoints.load(path, architecture=name))
    _check_timm_name(name)
    return _of_timm(name, config.teacher_weights, num_classes)


def untrained_teacher(config: DistillConfig, num_classes: int) -> TeacherModel:
    """A random teacher of debug size in place of the recipe's, for dry runs: `find_teacher` without weights.

    Raises as `find_teacher` for what can be found out without loading: an unknown name, a missing or unsafe file.
    """
    for path in (config.teacher if _is_file(config.teacher) else "", config.teacher_weights):
        if path:
            check_file(local_file(path).expanduser())
    if not _is_file(config.teacher) and config.teacher not in VARIANTS:
        _check_timm_name(config.teacher)
    model = create_model("fastvit_debug", num_classes=num_classes)
    return TeacherModel(name=f"{config.teacher} (debug size)", module=model, num_classes=num_classes)


def teacher_architecture(name: str, num_classes: int) -> nn.Module:
    """The teacher's architecture, untrained. Raises UsageError for a file's, which is known only from its content."""
    if name in VARIANTS:
        return build(name, num_classes=num_classes).eval()
    if timm.is_model(name):
        return timm.create_model(name, num_classes=num_classes).eval()
    raise UsageError(
        f"Memory can be estimated for teachers given by name, and '{name}' is no model of timm or this package. Leave "
        "distill.teacher out of the estimate with --distill.teacher ''."
    )


def _is_file(name: str) -> bool:
    return name.endswith(WEIGHT_ENDINGS) or Path(name).name != name or Path(name).is_file()


def _of_this_package(name: str, model: WholeModel) -> TeacherModel:
    card = model.card
    return TeacherModel(
        name=name,
        module=fold(model),
        num_classes=model.num_classes,
        class_names=card.class_names,
        mean=card.preprocessing.mean,
        std=card.preprocessing.std,
        image_size=card.preprocessing.image_size,
    )


def _check_timm_name(name: str) -> None:
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        known = [*timm.list_models(), *timm.list_pretrained(), *VARIANTS]
        raise UsageError(
            f"Recipe key 'distill.teacher' is '{name}', which is no model of timm or of this package, and no file. "
            f"{nearest(name, known)}."
        )
    tags = timm.list_pretrained(f"{architecture}.*")
    if tag and name not in tags:
        offer = f"Published: {', '.join(tags)}." if tags else "None are published."
        raise UsageError(
            f"Recipe key 'distill.teacher' is '{name}', but timm has no weights '{tag}' of it. {offer} For other "
            f"weights: --distill.teacher {architecture} --distill.teacher_weights FILE."
        )


def _of_timm(name: str, weights: str, num_classes: int) -> TeacherModel:
    config: Any = timm.get_pretrained_cfg(name)
    known_classes = num_classes if weights else config.num_classes
    if known_classes != num_classes:  # before anything is fetched
        raise _other_number(name, known_classes, num_classes)
    path = local_file(weights).expanduser() if weights else _published(name)
    tensors = checkpoints.read_tensors(path, known=is_whole(config)).tensors
    # timm's own way of loading, which knows the older names of its models; strict as long as the numbers agree
    overlay: dict[str, Any] = {"state_dict": dict(tensors), "num_classes": num_classes}
    classifier = config.classifier[0] if isinstance(config.classifier, tuple | list) else config.classifier
    outputs = tensors.get(f"{classifier}.weight")
    if weights and outputs is not None and len(outputs) != num_classes:
        raise _other_number(f"{name} in {weights}", len(outputs), num_classes)
    try:
        module = timm.create_model(name, pretrained=True, num_classes=num_classes, pretrained_cfg_overlay=overlay)
    except (RuntimeError, KeyError, AttributeError, TypeError, ValueError) as error:  # timm's filters index freely
        raise CheckpointError(
            f"{path} does not fit the teacher {name}: {one_line(error)}. Give the file that belongs to it, or the "
            "name that belongs to the file."
        ) from error
    own = cast(dict[str, Any], module.pretrained_cfg)
    own.pop("state_dict", None)  # a second copy of the weights
    return TeacherModel(
        name=name,
        module=module,
        num_classes=num_classes,
        mean=tuple(own["mean"]),
        std=tuple(own["std"]),
        image_size=tuple(own["input_size"][1:]),
    )


def _published(name: str) -> Path:
    """The file of a model's published weights, fetched once."""
    option = "--distill.teacher_weights FILE"
    try:
        if name in VARIANTS:
            return find_weights(name, True, option=option).path
        return timm_file(name)
    except (UsageError, CheckpointError) as error:
        by_hand = "" if option in str(error) else f" A file is passed with {option}."
        raise type(error)(f"The teacher {name} cannot be had. {error}{by_hand}") from error


def _check_classes(found: TeacherModel, class_names: tuple[str, ...]) -> None:
    if found.num_classes != len(class_names):
        raise _other_number(found.name, found.num_classes, len(class_names))
    if found.class_names and found.class_names != class_names:
        raise UsageError(
            f"The teacher {found.name} has other classes than the images: {difference(found.class_names, class_names)}."
            " Its answers would mean other things. Choose a teacher of the same classes."
        )


def _other_number(name: str, theirs: int, ours: int) -> UsageError:
    return UsageError(
        f"The teacher {name} has {theirs} classes, but the images have {ours}. Choose a teacher of the same classes, "
        "or train one on these images first."
    )


def _check_size(teacher: Teacher, found: TeacherModel, size: tuple[int, int], num_classes: int) -> None:
    """Show it one batch: what it takes is known by no other way."""
    trained = f" It was trained on {found.image_size[0]}x{found.image_size[1]}." if found.image_size else ""
    advice = f"{trained} Set data.image_size to what it takes, or choose another teacher."
    device = teacher._place.device
    try:
        logits = teacher.logits(torch.zeros(2, len(found.mean), *size, device=device))
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        raise UsageError(
            f"The teacher {found.name} does not take images of {size[0]}x{size[1]} pixels ({one_line(error)}).{advice}"
        ) from error
    if logits.shape != (2, num_classes):
        raise UsageError(
            f"The teacher {found.name} answers two images with shape {tuple(logits.shape)}, not (2, {num_classes}): it "
            "is no classifier of these classes. Choose another teacher."
        )


def _digest(module: nn.Module) -> str:
    """Of all weights: a resumed run must have the same teacher."""
    return digest({name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()})
