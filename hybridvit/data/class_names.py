"""Two lists of classes compared, for messages."""

from collections.abc import Sequence

from hybridvit.data.scan import look_alikes, without
from hybridvit.errors import some


def difference(theirs: Sequence[str], ours: Sequence[str]) -> str:
    """How the classes of the images (`ours`) differ from those of a model: new ones, absent ones, or their order."""
    new, absent = without(ours, theirs), without(theirs, ours)
    parts = [f"{what}: {some(names)}" for what, names in (("new", new), ("absent", absent)) if names]
    if not parts:
        index, one, other = next(
            (index, one, other) for index, (one, other) in enumerate(zip(theirs, ours, strict=True)) if one != other
        )
        return f"the same in another order, first at {index}, '{one}' there and '{other}' here"
    return "; ".join(filter(None, [*parts, look_alikes(new, theirs).strip(" .")]))
