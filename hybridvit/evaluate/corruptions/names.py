"""Which corruptions there are, by the names that ImageNet-C's folders have. Importing it needs nothing."""

from collections.abc import Sequence
from typing import Literal

from hybridvit.errors import UsageError, nearest, some

StoredAs = Literal["jpeg", "raw"]
"""What a corrupted picture is kept as: JPEG of quality 85, as ImageNet-C's files are, or every pixel."""
GROUPS: dict[str, tuple[str, ...]] = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    "extra": ("speckle_noise", "gaussian_blur", "spatter", "saturate"),
}
COMMON = tuple(name for group, names in GROUPS.items() if group != "extra" for name in names)
"""The 15 that ImageNet-C's mean is over; those of "extra" are for choosing options, and never enter it."""
ALL = (*COMMON, *GROUPS["extra"])
SEVERITIES = (1, 2, 3, 4, 5)
WORDS = {"all": ALL, "common": COMMON, **GROUPS}


def chosen(words: Sequence[str]) -> tuple[str, ...]:
    """The corruptions that words mean, names or groups of them, in the order of `ALL`.

    Raises UsageError for an unknown word, and where there is none.
    """
    for word in words:
        if word not in WORDS and word not in ALL:
            raise UsageError(
                f"There is no corruption '{word}'. {nearest(word, (*WORDS, *ALL))}. Groups are {some(list(WORDS), 9)}."
            )
    if not words:
        raise UsageError("--corruptions names none. Give names, or all, common, noise, blur, weather, digital, extra.")
    meant = {name for word in words for name in WORDS.get(word, (word,))}
    return tuple(name for name in ALL if name in meant)


def checked_severities(severities: Sequence[int]) -> tuple[int, ...]:
    """The severities in ascending order. Raises UsageError for none, one that is named twice, or not from 1 to 5."""
    if wrong := [each for each in severities if each not in SEVERITIES]:
        raise UsageError(f"--severities has {wrong[0]}, but severities are 1 (least) to 5 (most). Give some of those.")
    if not severities or len(set(severities)) < len(severities):
        fault = "has the same one twice" if severities else "names none"
        raise UsageError(f"--severities {fault}. Give each of 1 to 5 at most once.")
    return tuple(sorted(severities))
