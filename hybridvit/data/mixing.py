"""Mixup and CutMix, which blend the images of a batch and what is true of them."""

from timm.data import Mixup

from hybridvit.data.augment_config import AugmentConfig
from hybridvit.errors import UsageError


def mixing(augment: AugmentConfig, micro_batch: int, num_classes: int, smoothing: float) -> Mixup | None:
    """timm's mixing of images and class numbers, with label smoothing; None where neither is on.

    Raises UsageError for a micro-batch that cannot be paired.
    """
    if not (augment.mixup or augment.cutmix):
        return None
    if micro_batch % 2:
        raise UsageError(
            f"Mixup and CutMix pair the images of a micro-batch, and {micro_batch} is odd. Choose an even "
            "data.total_batch (or data.micro_batch), or set augment.mixup and augment.cutmix to 0."
        )
    return Mixup(
        mixup_alpha=augment.mixup,
        cutmix_alpha=augment.cutmix,
        prob=augment.mix_probability,
        switch_prob=augment.cutmix_share,
        label_smoothing=smoothing,
        num_classes=num_classes,
    )
