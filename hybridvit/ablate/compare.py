"""What a grid of rows and seeds shows: means, differences paired by seed, and which of them are resolved.

Rows of one seed see the same data in the same order, so a row is compared with its baseline seed by seed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hybridvit.ablate.cells import Cell, rows_of
from hybridvit.ablate.tables import AblationTable

NUM_RESAMPLES, CHUNK = 10_000, 500
LEVEL = 0.05
FEWEST_FOR_T = 5  # seeds
RESOLVABLE = 2.8  # standard errors: found at the 5 % level in four of five repetitions

Verdict = Literal["better", "worse", "not resolved"]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A row minus its baseline, in points of the metric."""

    against: str
    mean: float
    low: float  # 95 % interval of the two-level bootstrap
    high: float
    t_low: float | None  # 95 % t-interval over seeds, from 5 seeds
    t_high: float | None
    p: float  # the larger of the bootstrap's and the paired t-test's over seeds
    adjusted_p: float  # after Holm, over the rows of the table
    num_seeds: int

    @property
    def verdict(self) -> Verdict:
        """Resolved where the adjusted p is below 5 %."""
        if self.adjusted_p >= LEVEL:
            return "not resolved"
        return "better" if self.mean > 0 else "worse"


@dataclass(frozen=True, kw_only=True)
class RowResult:
    """A row with all its seeds."""

    name: str
    values: Mapping[int, float]  # by seed
    mean: float | None
    sd: float | None  # of a sample; None for fewer than two seeds
    difference: Difference | None
    costs: Mapping[str, float | None]
    published: float | None
    published_change: float | None
    published_note: str
    failures: Mapping[int, str]  # by seed
    missing: tuple[int, ...]  # seeds that have not been run


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A table, as it came out."""

    table: str
    title: str
    metric: str
    rows: tuple[RowResult, ...]
    resolvable: float | None  # the smallest difference that this grid can resolve, in points


def compare(name: str, table: AblationTable, cells: Sequence[Cell]) -> Comparison:
    """Compare what is finished; what failed or was not run stays visible as such."""
    groups = dict(rows_of(cells))
    found = {row: {cell.seed: done for cell in group if (done := cell.result())} for row, group in groups.items()}
    raw = {}
    for row in groups:
        if row != table.baseline and table.against(row) != row:
            raw[row] = _paired(found[row], found[table.against(row)], table.against(row))
    adjusted = holm({row: each.p for row, each in raw.items() if each is not None})
    rows = []
    for row, group in groups.items():
        values = {seed: done["value"] for seed, done in found[row].items()}
        difference = raw.get(row)
        if difference is not None:
            difference = Difference(**{**vars(difference), "adjusted_p": adjusted[row]})
        printed = table.rows[row]
        rows.append(
            RowResult(
                name=row,
                values=values,
                mean=float(np.mean(list(values.values()))) if values else None,
                sd=float(np.std(list(values.values()), ddof=1)) if len(values) > 1 else None,
                difference=difference,
                costs=_costs(list(found[row].values())),
                published=printed.published,
                published_change=table.published_change(row) if row in raw else None,
                published_note=printed.published_note,
                failures={cell.seed: text for cell in group if (text := cell.failure())},
                missing=tuple(cell.seed for cell in group if not cell.result() and not cell.failure()),
            )
        )
    metric = next((done["metric"] for each in found.values() for done in each.values()), "")
    return Comparison(table=name, title=table.title, metric=metric, rows=tuple(rows), resolvable=_resolvable(rows))


def bootstrap_two_levels(differences: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Means of `NUM_RESAMPLES` resamples of a (seeds, images) array, drawing seeds first, then images, with returns.

    One draw of images serves all seeds of a resample, as all of them were asked about the same images.
    """
    num_seeds, num_images = differences.shape
    dice = np.random.default_rng(seed)
    means = []
    for _ in range(0, NUM_RESAMPLES, CHUNK):
        seeds = dice.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), CHUNK) / num_seeds
        images = dice.multinomial(num_images, np.full(num_images, 1 / num_images), CHUNK) / num_images
        means.append(np.einsum("rs,si,ri->r", seeds, differences, images, optimize=True))
    return np.concatenate(means)


def holm(values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values that keep the chance of any false verdict in the table at the level (Holm 1979)."""
    adjusted, largest = {}, 0.0
    for rank, name in enumerate(sorted(values, key=lambda each: values[each])):
        largest = max(largest, min(1.0, (len(values) - rank) * values[name]))
        adjusted[name] = largest
    return adjusted


def student_p(t: float, freedom: int) -> float:
    """The two-sided p of Student's t with whole degrees of freedom (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    angle = math.atan(abs(t) / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    term, total = (cosine, 0.0) if freedom % 2 else (1.0, 0.0)
    for power in range(3 if freedom % 2 else 2, freedom + 1, 2):
        total += term
        term *= cosine**2 * (power - 1) / power
    inside = 2 / math.pi * (angle + sine * total) if freedom % 2 else sine * total
    return max(0.0, 1 - inside)


def student_quantile(freedom: int) -> float:
    """The t that a two-sided test at the level asks for."""
    low, high = 0.0, 1000.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if student_p(middle, freedom) > LEVEL else (low, middle)
    return high


def _paired(
    mine: Mapping[int, Mapping[str, Any]], other: Mapping[int, Mapping[str, Any]], against: str
) -> Difference | None:
    """None where no seed is finished in both."""
    seeds = [seed for seed in mine if seed in other]
    if not seeds:
        return None
    by_seed = np.array([mine[seed]["value"] - other[seed]["value"] for seed in seeds])
    if all(each[seed]["right"] for each in (mine, other) for seed in seeds):
        answers = np.array([_answers(mine[seed]) - _answers(other[seed]) for seed in seeds])
    else:
        answers = by_seed[:, None]
    means = bootstrap_two_levels(answers)
    low, high = np.quantile(means, [LEVEL / 2, 1 - LEVEL / 2])
    tail = min(np.mean(means <= 0), np.mean(means >= 0))
    mean, count = float(by_seed.mean()), len(seeds)
    error = float(by_seed.std(ddof=1)) / math.sqrt(count) if count > 1 else math.inf
    p_seeds = 1.0 if count < 2 or mean == 0 else student_p(mean / error, count - 1) if error else 0.0
    half = student_quantile(count - 1) * error if count >= FEWEST_FOR_T else None
    p = max(min(1.0, 2 * float(tail) + 1 / NUM_RESAMPLES), p_seeds)
    return Difference(
        against=against,
        mean=mean,
        low=float(low),
        high=float(high),
        t_low=None if half is None else mean - half,
        t_high=None if half is None else mean + half,
        p=p,
        adjusted_p=p,
        num_seeds=count,
    )


def _answers(cell: Mapping[str, Any]) -> np.ndarray:
    """100 for a right answer, 0 for a wrong one: their mean is the metric in %."""
    return 100.0 * (np.frombuffer(cell["right"].encode(), dtype=np.uint8) == ord("1"))


def _costs(done: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Means over seeds; times leave out cells that were stopped in between, as a part of theirs is not known."""
    costs: dict[str, float | None] = {}
    for name in ("core_seconds", "wall_seconds", "peak_memory_mib", "images_until_90", "parameters", "multiply_adds"):
        kept = [each[name] for each in done if not (name.endswith("seconds") and each["resumed"])]
        costs[name] = None if not kept or None in kept else float(np.mean(kept))
    return costs


def _resolvable(rows: Sequence[RowResult]) -> float | None:
    """From the pooled spread of all rows with two or more seeds."""
    kept = [row for row in rows if row.sd is not None]
    if not kept:
        return None
    freedom = [len(row.values) - 1 for row in kept]
    variance = float(np.average([(row.sd or 0.0) ** 2 for row in kept], weights=freedom))
    return RESOLVABLE * math.sqrt(variance) * math.sqrt(2 / max(len(row.values) for row in kept))
