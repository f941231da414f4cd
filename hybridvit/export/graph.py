"""What a runtime computes: images in, answers out, with what the options of an export put around the model."""

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn

from hybridvit.export.spec import GraphSpec
from hybridvit.models.raw_pixels import fold_preprocessing
from hybridvit.models.whole import WholeModel
from hybridvit.models.with_head import Head
from hybridvit.models.zero_shot import normalised
from hybridvit.task import find_task

MOST_IN_BYTES = 256  # classes


def given_by(model: WholeModel, spec: GraphSpec, images: Tensor) -> tuple[Tensor, ...]:
    """What `spec` asks of a model, in float32; of the most probable classes, and of the largest, all logits."""
    if spec.returns == "pyramid":
        return tuple(fmap.float() for fmap in model.features(images).values())
    if spec.returns in ("features", "embeddings", "map"):
        classifier = cast(Any, model)  # of ours or of timm: `resolve` refuses models with a head
        last = classifier.forward_features(images)
        if spec.returns == "map":
            in_order = getattr(getattr(classifier, "head", None), "in_order", None)  # what a rewrite moved, moved back
            return ((in_order(last) if in_order else last).float(),)
        vector = classifier.forward_head(last, pre_logits=spec.returns == "features")
        return (vector.float() if spec.returns == "features" else normalised(vector),)
    answers = find_task(model.card.task).forward(model, images)
    return tuple(answers[name] for name in spec.answers)


def _in_few_bits(answer: Tensor) -> Tensor:
    """Whole numbers in 32 bits, as every runtime has them."""
    return answer.to(torch.int32) if answer.dtype == torch.int64 else answer


def largest(logits: Tensor) -> Tensor:
    """The number of the class with the largest logit (b classes ...), in bytes where they hold it."""
    return logits.argmax(1).to(torch.uint8 if logits.shape[1] <= MOST_IN_BYTES else torch.int32)


class DeployedModel(nn.Module):
    """A folded model between the ends that `spec` describes; `model` is unchanged.

    With uint8 pixels the normalisation is inside (`fold_preprocessing`), and the input is channels-last.
    """

    def __init__(self, model: WholeModel, spec: GraphSpec) -> None:
        super().__init__()
        self.spec = spec
        self.backbone = fold_preprocessing(model) if spec.pixels == "uint8" else copy.deepcopy(model)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The outputs named `spec.outputs`, in float32; a single one is not in a tuple."""
        outputs = self.outputs(images)
        return outputs if len(outputs) > 1 else outputs[0]

    def outputs(self, images: Tensor) -> tuple[Tensor, ...]:
        """Those of `forward`, always in a tuple."""
        weight = next(self.backbone.parameters())
        if self.spec.pixels == "uint8":
            images = images.permute(0, 3, 1, 2)  # b c h w
        made = given_by(self.backbone, self.spec, images.to(weight.dtype))
        if self.spec.argmax:
            return (largest(made[0]),)
        if self.spec.top_k is None:
            return tuple(_in_few_bits(each) for each in made)
        probabilities, indices = made[0].softmax(1).topk(self.spec.top_k)
        return probabilities, indices.to(torch.int32)

    def example(self, batch: int = 2, size: tuple[int, int] | None = None) -> Tensor:
        """A batch to convert with, as `forward` takes it."""
        shape = self.spec.shape(self.spec.batch or batch, size or self.spec.image_size)
        return torch.zeros(shape, dtype=torch.uint8 if self.spec.pixels == "uint8" else torch.float32)

    def in_dtype(self, dtype: torch.dtype) -> "DeployedModel":
        """A copy that computes in `dtype` between the same ends, but for a head that needs 32 bits."""
        made = copy.deepcopy(self).to(dtype)
        for name in heads_in_float32(self):
            made.set_submodule(name, copy.deepcopy(self.get_submodule(name)))
        return made


def heads_in_float32(model: nn.Module) -> list[str]:
    """The names of heads inside `model` that compute in 32 bits in every file."""
    return [name for name, module in model.named_modules() if isinstance(module, Head) and module.in_float32]
