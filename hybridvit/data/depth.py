"""Pictures of more than 8 bits: which levels they use, and what to say of those that would become black."""

from collections.abc import Iterable

from hybridvit.data.decode import Facts, ImageSource, decode, depth_of
from hybridvit.errors import ImageDecodeError

MOST_LOOKED_AT = 16
DARK = 0.25
"""Share of the range below which a set is called dark: of 255 grey levels at most a quarter would be left."""


def is_dark(facts: Facts) -> bool:
    """Whether a picture of more than 8 bits becomes nearly black: its brightest level is far below the highest."""
    return facts.range is not None and facts.range[1] < DARK * facts.white


def white_of(highest: float) -> int:
    """The highest level of as many bits as the brightest one takes."""
    return 2 ** max(1, int(highest).bit_length()) - 1


def remarks_on_depth(sources: Iterable[ImageSource]) -> list[str]:
    """What there is to say of pictures whose levels no one has named: nothing, unless all deep ones are dark."""
    deep = []
    for source in sources:
        try:
            if depth_of(source) > 8:
                deep.append(decode(source).facts)
        except ImageDecodeError:
            continue  # said where it matters, with its path
    if not deep or not all(map(is_dark, deep)):
        return []
    return [dark(deep)]


def dark(deep: list[Facts]) -> str:
    """What is said of such pictures."""
    ranges = [facts.range for facts in deep if facts.range is not None]
    low, high = min(each[0] for each in ranges), max(each[1] for each in ranges)
    left = round(255 * high / max(facts.white for facts in deep))
    looked = "1 was" if len(deep) == 1 else f"{len(deep)} were"
    white = white_of(high)
    return (
        f"Pictures of {deep[0].bits} bits use the levels {low:,.0f} to {high:,.0f} alone ({looked} looked at), which "
        f"become 0 to {left} of 255: nearly black. If {white:,} is white, train with --data.levels '[0,{white}]'; the "
        "checkpoint keeps the levels, and every later command follows them."
    )
