"""Compare a result with an earlier one: what became slower, beyond noise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hybridvit.errors import UsageError
from hybridvit.measure.result import key

SLOWER = 9
"""Exit code of `hybridvit bench --against` where a candidate is slower."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One candidate in both results; times in milliseconds."""

    label: str
    before_ms: float
    after_ms: float
    verdict: str  # "slower", "faster", "same"

    @property
    def ratio(self) -> float:
        """Time now / time then."""
        return self.after_ms / self.before_ms


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Every candidate of both results, and what else differs."""

    changes: tuple[Change, ...]
    only_before: int
    only_after: int
    differences: tuple[str, ...]  # of the machines

    @property
    def slower(self) -> list[Change]:
        """Those whose intervals lie apart and that are slower by more than the tolerance."""
        return [change for change in self.changes if change.verdict == "slower"]

    def text(self) -> str:
        """One line per candidate, the most slowed down first, and what to know beside them."""
        width = max(len(change.label) for change in self.changes)
        ordered = sorted(self.changes, key=lambda change: -change.ratio)
        lines = ["Against the earlier result:"]
        for each in ordered:
            lines.append(
                f"  {each.label:<{width}}  {each.before_ms:9.2f} -> {each.after_ms:9.2f} ms  "
                f"x{each.ratio:.3f}  {each.verdict}"
            )
        if self.only_before or self.only_after:
            lines.append(f"  Only there: {self.only_before}; only here: {self.only_after}; not compared.")
        lines += [f"  Note: {difference}" for difference in self.differences]
        return "\n".join(lines)


def check_tolerance(tolerance: float) -> None:
    """Raise UsageError for one that is no number from 0."""
    if not tolerance >= 0:
        raise UsageError(f"The tolerance is {tolerance * 100:g} %, but must be a number from 0. Use --tolerance 5.")


def check_comparable(records: Sequence[Mapping[str, Any]], before: Mapping[str, Any]) -> None:
    """Raise UsageError if none of `records`, whose times need not be known yet, is of a candidate in `before`."""
    if not {key(record) for record in records} & {key(record) for record in before["bench"]}:
        raise UsageError(
            "The two results have no candidate in common: the same model, form, runtime, precision, device, batch, "
            "image size and threads. Measure with the options of the earlier run."
        )


def compare(after: Mapping[str, Any], before: Mapping[str, Any], *, tolerance: float) -> Comparison:
    """Compare two results' dicts, candidate by candidate.

    Slower (faster) is one whose 95 % interval lies wholly above (below) the earlier one and whose median differs by
    more than `tolerance` (0.05: 5 %). Raises UsageError if no candidate is in both.
    """
    check_tolerance(tolerance)
    now = {key(record): record for record in after["bench"]}
    then = {key(record): record for record in before["bench"]}
    check_comparable(after["bench"], before)
    both = [name for name in now if name in then]
    labels = _labels([now[name] for name in both])
    changes = [_change(label, now[name], then[name], tolerance) for name, label in zip(both, labels, strict=True)]
    return Comparison(
        changes=tuple(changes),
        only_before=len(then) - len(both),
        only_after=len(now) - len(both),
        differences=tuple(_differences(after["machine"], before["machine"])),
    )


def _labels(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """What each candidate is called; device and threads only where these alone tell two apart."""
    short = [
        ", ".join((each["model"], each["runtime"], each["precision"], f"batch {each['batch']}", each["image_size"]))
        for each in records
    ]
    return [
        label if short.count(label) == 1 else f"{label}, {each['device']}, threads {each['threads']}"
        for label, each in zip(short, records, strict=True)
    ]


def _change(label: str, now: Mapping[str, Any], then: Mapping[str, Any], tolerance: float) -> Change:
    verdict = "same"
    if now["low_ms"] > then["high_ms"] and now["median_ms"] > then["median_ms"] * (1 + tolerance):
        verdict = "slower"
    elif now["high_ms"] < then["low_ms"] and now["median_ms"] < then["median_ms"] * (1 - tolerance):
        verdict = "faster"
    return Change(label=label, before_ms=then["median_ms"], after_ms=now["median_ms"], verdict=verdict)


def _differences(now: Mapping[str, Any], then: Mapping[str, Any]) -> list[str]:
    said = []
    for name in ("processor", "cores", "gpu"):
        if now.get(name) != then.get(name):
            said.append(f"another machine: {name} was {then.get(name)}, is {now.get(name)}.")
    versions, earlier = now.get("versions", {}), then.get("versions", {})
    changed = [
        f"{name} {earlier.get(name, 'none')} -> {versions.get(name, 'none')}"
        for name in sorted({*versions, *earlier})
        if versions.get(name) != earlier.get(name)
    ]
    if changed:
        said.append(f"other versions: {', '.join(changed)}.")
    return said
