"""No augmentation: the largest centre crop of every image, unmixed, with hard labels."""

from hybridvit.data.augment_config import AugmentConfig

NO_AUGMENT = AugmentConfig(
    scale=(1.0, 1.0),
    ratio=(1.0, 1.0),
    hflip=0.0,
    color_jitter=0.0,
    rand_augment="",
    random_erasing=0.0,
    mixup=0.0,
    cutmix=0.0,
    label_smoothing=0.0,
)
