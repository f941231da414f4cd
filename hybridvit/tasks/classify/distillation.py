"""Learning from another model's answers: a teacher's (DeiT, Touvron et al., 2021) or the own average's (MESA).

Plain functions of logits, which they take to float32 at least: in half precision a softmax loses small probabilities.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hybridvit.task import Moment
from hybridvit.tasks.classify.config import DistillConfig, MesaConfig


def distilled(
    base: Float[Tensor, ""],
    logits: Float[Tensor, "b k"],
    teacher_logits: Float[Tensor, "b k"],
    config: DistillConfig,
) -> Float[Tensor, ""]:
    """(1 - weight) base + weight distillation, with one head for both (FastViT, section 4.1, "Knowledge distillation").

    hard: cross-entropy with the class that the teacher finds most likely, unsmoothed; soft: T^2 times the divergence
    at temperature T, so that its gradient keeps its size whatever T is (Hinton et al., 2015).
    """
    if config.kind == "hard":
        learned = F.cross_entropy(_precise(logits), teacher_logits.detach().argmax(1))
    else:
        learned = config.temperature**2 * divergence(logits, teacher_logits, config.temperature)
    return (1 - config.weight) * base + config.weight * learned


def mesa_is_on(config: MesaConfig, moment: Moment) -> bool:
    """Whether this step learns from the average: a function of the step alone, so that a resumed run agrees."""
    return config.weight > 0 and moment.step >= config.start * moment.total_steps


def mesa_term(
    logits: Float[Tensor, "b k"], averaged_logits: Float[Tensor, "b k"], config: MesaConfig
) -> Float[Tensor, ""]:
    """weight KL(average || model) at the temperature, not multiplied by its square (FasterViT, appendix I)."""
    return config.weight * divergence(logits, averaged_logits, config.temperature)


def divergence(
    logits: Float[Tensor, "b k"], target_logits: Float[Tensor, "b k"], temperature: float
) -> Float[Tensor, ""]:
    """KL(softmax(target / T) || softmax(logits / T)), the mean over the batch; no gradient reaches the target."""
    target = F.log_softmax(_precise(target_logits.detach()) / temperature, 1)
    return F.kl_div(F.log_softmax(_precise(logits) / temperature, 1), target, reduction="batchmean", log_target=True)


def _precise(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
