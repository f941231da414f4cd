"""What can be drawn of the inside of a classifier in PyTorch over the picture; the process of a model draws it."""

from io import BytesIO

import numpy as np

from hybridvit.errors import UsageError
from hybridvit.export.runners import Runner, TorchRunner

NAMES = ("cam", "attention")


def offered(runner: Runner) -> tuple[str, ...]:
    """The overlays that a model has: each is tried on an image of zeros."""
    preprocessing = runner.card.preprocessing
    image = np.zeros((len(preprocessing.mean), *preprocessing.image_size), np.float32)
    return tuple(name for name in NAMES if _can_be_drawn(runner, name, image))


def overlay(runner: Runner, name: str, image: np.ndarray) -> bytes:
    """A PNG: "cam" is what speaks for the answer, "attention" where the middle of the picture looks.

    `image` is c h w, prepared as the card says. Raises UsageError for a model that has no such overlay.
    """
    from hybridvit.data.preprocess import as_picture
    from hybridvit.explain.drawing import Explaining, draw_attention, draw_classes, stacked
    from hybridvit.models.backbone import Backbone

    if not isinstance(runner, TorchRunner) or not isinstance(runner.model, Backbone):
        raise UsageError("Only classifiers in PyTorch have overlays. Serve a checkpoint of one.")
    draw = {"cam": draw_classes, "attention": draw_attention}[name]
    inputs, shown = stacked([image]).to(runner.device), as_picture(image, runner.card.preprocessing)
    drawings = draw(runner.model, inputs, shown, Explaining())
    over_picture = [each for each in drawings if each.name.startswith(("cam", "attention-rollout"))]
    if not over_picture:
        raise UsageError("The attention of this model cannot be followed over the picture. Leave the overlay out.")
    file = BytesIO()
    over_picture[-1].picture.save(file, "PNG")
    return file.getvalue()


def _can_be_drawn(runner: Runner, name: str, image: np.ndarray) -> bool:
    try:
        overlay(runner, name, image)
    except UsageError:
        return False
    return True
