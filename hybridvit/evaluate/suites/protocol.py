"""How the images of a suite are prepared: the accuracy of a model on a suite means little without it."""

from collections.abc import Callable
from dataclasses import replace

from hybridvit.card import Preprocessing
from hybridvit.errors import UsageError
from hybridvit.evaluate.corruptions.stored import OFFICIAL
from hybridvit.evaluate.suites.layout import Part
from hybridvit.evaluate.suites.options import Protocol

CLEAN_OF_C = "clean of c"
"""The suite of the clean images prepared as those of ImageNet-C were: short side 256, centre 224."""
PAPER_CROP = 0.875


def chosen_protocol(protocol: Protocol, part: Part, takes_size: Callable[[tuple[int, int]], bool]) -> str:
    """The protocol that a file is shown a part in.

    "auto" is the card's, and for corrupted images, which are cut already, as they are; resized only where the file
    takes one other size. Raises UsageError for a size that was asked for and that the file does not take.
    """
    if part.suite == CLEAN_OF_C:
        return CLEAN_OF_C
    cut_already = bool(part.corruption)
    if protocol == "auto":
        return "card" if not cut_already else "as-is" if takes_size(part.side_px()) else "resized"
    if protocol == "as-is" and cut_already and not takes_size(part.side_px()):
        height, width = part.side_px()
        raise UsageError(
            f"--protocol as-is shows {part.title} in its own size, {height}x{width}, but a file takes another one "
            "alone. Use --protocol resized, or export it with that --image_size."
        )
    if protocol in ("as-is", "resized") and not cut_already:
        return "card"  # these two are for images that are cut already
    return protocol


def preprocessing_of(protocol: str, card: Preprocessing, part: Part) -> Preprocessing:
    """The settings that a protocol stands for."""
    if protocol == "paper-fastvit":  # the evaluation code of RVT, which FastViT names
        return replace(card, crop_fraction=PAPER_CROP, interpolation="bicubic", crop_mode="center")
    if protocol == "as-is":
        return replace(card, image_size=part.side_px(), crop_fraction=1.0, crop_mode="center")
    if protocol == "resized":
        return replace(card, crop_fraction=1.0, crop_mode="squash")
    if protocol == CLEAN_OF_C:
        return replace(OFFICIAL, mean=card.mean, std=card.std, exif_orientation=card.exif_orientation)
    return card
