"""How the images of a suite are prepared: the accuracy of a model on a suite means little without it."""

from collections.abc import Callable
from dataclasses import replace

from hybridvit.card import ModelCard, Preprocessing
from hybridvit.data.samples import Samples
from hybridvit.errors import UsageError
from hybridvit.evaluate.corruptions.stored import OFFICIAL, Cut
from hybridvit.evaluate.suites.layout import Part
from hybridvit.evaluate.suites.options import Protocol

CLEAN_OF_C = "clean of c"
"""The suite of the clean images cut as those of ImageNet-C were: short side 256, centre 224."""
PAPER_CROP = 0.875


def clean_of_c(clean: Part) -> Part:
    """The clean images as they were before ImageNet-C's corruptions, to be shown like the corrupted ones."""

    def samples(preprocessing: Preprocessing) -> Samples:
        found = clean.samples(preprocessing)
        found.change = Cut()
        return found

    return replace(clean, suite=CLEAN_OF_C, title=CLEAN_OF_C, samples=samples, side_px=lambda: OFFICIAL.image_size)


def chosen_protocols(
    protocol: Protocol, part: Part, card: ModelCard, takes_size: Callable[[tuple[int, int]], bool]
) -> tuple[str, ...]:
    """The protocols that a file is shown a part in, one most often.

    "auto" is the card's, and for corrupted images, which are cut already, as they are; resized only where the file
    takes one other size. A FastViT is shown ImageNet-C in both ways where they differ: the paper names evaluation code
    that feeds 224 pixels to its models of 256, and states neither. Raises UsageError for a size that was asked for and
    that the file does not take.
    """
    cut_already = bool(part.corruption) or part.suite == CLEAN_OF_C
    if not cut_already:
        return ("card",) if protocol in ("auto", "as-is", "resized") else (protocol,)
    if protocol == "auto":
        if not takes_size(part.side_px()):
            return ("resized",)
        is_both = card.architecture.startswith("fastvit_") and part.suite in ("c", CLEAN_OF_C)
        return ("as-is", "resized") if is_both and card.preprocessing.image_size != part.side_px() else ("as-is",)
    if protocol == "as-is" and not takes_size(part.side_px()):
        height, width = part.side_px()
        raise UsageError(
            f"--protocol as-is shows {part.title} in its own size, {height}x{width}, but a file takes another one "
            "alone. Use --protocol resized, or export it with that --image_size."
        )
    return (protocol,)


def preprocessing_of(protocol: str, card: Preprocessing, part: Part) -> Preprocessing:
    """The settings that a protocol stands for."""
    if protocol == "paper-fastvit":  # the evaluation code of RVT, which FastViT names
        return replace(card, crop_fraction=PAPER_CROP, interpolation="bicubic", crop_mode="center")
    if protocol == "as-is":
        return replace(card, image_size=part.side_px(), crop_fraction=1.0, crop_mode="center")
    if protocol == "resized":
        return replace(card, crop_fraction=1.0, crop_mode="squash")
    return card
