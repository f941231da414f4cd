"""Image sizes of a file whose height and width are dynamic: from where to where, and where it is compared."""

from torch import nn

from hybridvit.card import MIN_SIDE_PX, ModelCard
from hybridvit.errors import UsageError
from hybridvit.models.hat.fixed_size import sides_with_carriers

LARGEST_SIDE_PX = 2048


def check_range(model: nn.Module, card: ModelCard, dynamic_size: bool | tuple[int, int]) -> tuple[int, int]:
    """The smallest and largest side of a dynamic export; True is the widest that is proven.

    A graph has one path: on a map of a single window FasterViT runs without carriers, so such images are another graph.

    Raises:
        UsageError: for a model fixed to one size, no range, or one that needs more than one graph.
    """
    name = card.architecture
    if card.fixed_size is not None:
        raise UsageError(
            f"dynamic_size is set, but the positions of this {name} are constants for {card.fixed_size[0]}x"
            f"{card.fixed_size[1]} pixels. Export the model that it was folded from, or leave dynamic_size out."
        )
    with_carriers = list(sides_with_carriers(model))
    smallest = max([MIN_SIDE_PX, *with_carriers])
    if isinstance(dynamic_size, bool):
        return smallest, LARGEST_SIDE_PX
    sides = tuple(dynamic_size)
    if len(sides) != 2 or any(type(side) is not int for side in sides) or sides[0] >= sides[1]:
        raise UsageError(
            f"dynamic_size is {dynamic_size!r}, but must be True or (smallest, largest) side in whole pixels. "
            f"Use ({smallest}, {LARGEST_SIDE_PX}) for the whole range."
        )
    if sides[0] < smallest or sides[1] > LARGEST_SIDE_PX:
        reason = "below that an image has too few windows for carriers, which is another graph" if with_carriers else ""
        raise UsageError(
            f"dynamic_size is {sides[0]} to {sides[1]} pixels, but one file of this {name} can take {smallest} to "
            f"{LARGEST_SIDE_PX}{f': {reason}' if reason and sides[0] < smallest else ''}. Stay inside, or export small "
            "images with a fixed image_size."
        )
    return sides[0], sides[1]


def example_size(range_px: tuple[int, int]) -> tuple[int, int]:
    """A size to convert with: two different sides inside the range, neither of them special."""
    smallest, largest = range_px
    width = largest - smallest
    return smallest + min(width // 3, smallest + 30), smallest + min(width // 2, smallest + 94)


def sizes_to_compare(range_px: tuple[int, int], card_size: tuple[int, int]) -> list[tuple[int, int]]:
    """The smallest size, that of the card if inside, an odd one that is not square, and a larger one."""
    smallest, largest = range_px
    odd, wider, taller = (min(side, largest) for side in (2 * smallest + 1, 3 * smallest, 4 * smallest))
    sizes = [(smallest, smallest), (odd, smallest + (odd - smallest) // 3), (taller, wider)]
    if all(smallest <= side <= largest for side in card_size):
        sizes.append(card_size)
    return list(dict.fromkeys(sizes))
