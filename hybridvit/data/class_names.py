"""Two lists of classes compared, for messages."""

from collections.abc import Sequence

from hybridvit.data.scan import look_alikes
from hybridvit.errors import some


def difference(theirs: Sequence[str], ours: Sequence[str]) -> str:
    """How the classes of the images (`ours`) differ from those of a model: new ones, absent ones, or their order."""
    new = [name for name in ours if name not in set(theirs)]
    absent = [name for name in theirs if name not in set(ours)]
    parts = [f"{what}: {some(names)}" for what, names in (("new", new), ("absent", absent)) if names]
    if not parts:
        index, one, other = next(
            (index, one, other) for index, (one, other) in enumerate(zip(theirs, ours, strict=True)) if one != other
        )
        return f"the same in another order, first at {index}, '{one}' there and '{other}' here"
    return "; ".join(filter(None, [*parts, look_alikes(new, theirs).strip(" .")]))
