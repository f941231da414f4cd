"""Convert to integers, measure, and keep the fewest layers in floating point that a budget of accuracy asks for."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hybridvit.card import Preprocessing
from hybridvit.errors import ExportError, UsageError
from hybridvit.export.exporter import Quantisation
from hybridvit.export.graph import DeployedModel
from hybridvit.export.original import Original
from hybridvit.export.quantise.accuracy import Accuracy, first_answers, paired_interval, percent, right_answers
from hybridvit.export.quantise.plan import QuantisationPlan, batches, matching
from hybridvit.export.quantise.sensitivity import rank_layers
from hybridvit.export.runners import ExportedRunner

_log = logging.getLogger(__name__)

NUM_RANKED = 8  # images that decide which layers are sensitive: every layer is run on them
NUM_WORST = 10  # layers in the report
ROUNDING = 1e-9  # points: of the subtraction
INSIDE = "backbone."  # where the model is inside a deployed one; names are given and reported without it

Write = Callable[[Quantisation], ExportedRunner]
"""Convert, in place of what was converted before, and open the file."""


@dataclass(frozen=True)
class Attempt:
    """A conversion that was measured."""

    num_kept: int  # of the ranked layers
    answers: np.ndarray
    right: np.ndarray  # which of them are


def quantise(
    model: DeployedModel,
    original: Original,
    preprocessing: Preprocessing,
    plan: QuantisationPlan,
    write: Write,
    *,
    floating: Sequence[str] = (),
) -> Accuracy:
    """Write a file of integers within the plan's budget, and measure it in its own runtime.

    `preprocessing` is that of the file, `floating` the layers that its target keeps by a rule. With a budget, layers
    return to floating point in the order of their sensitivity: 1, 2, 4, ... until the drop is small enough, then by
    bisection to about the fewest. Raises ExportError with the best that was reached if the budget cannot be met,
    UsageError for unknown layers in `plan.keep` or a graph that gives no logits.
    """
    if model.spec.returns != "logits":
        raise UsageError(
            f"The file is to return {model.spec.returns} in int8, but what integers cost is measured as accuracy, "
            "which needs classes. Use --returns logits, or --precision fp16."
        )
    images = _as_graph(model, np.concatenate(list(batches(plan.calibration, preprocessing))))
    ranking = rank_layers(model, images[:: max(1, len(images) // NUM_RANKED)][:NUM_RANKED])
    names = [each.name.removeprefix(INSIDE) for each in ranking]
    fixed = {*matching(plan.keep, names), *(name.removeprefix(INSIDE) for name in floating)}
    always = [name for name in names if name in fixed]
    ranked = [name for name in names if name not in always]
    expected = np.concatenate([original(batch)[0].argmax(1) for batch in batches(plan.labelled, preprocessing)])
    before = right_answers(expected, plan.labels)
    tried: list[Attempt] = []

    def converted(num_kept: int) -> ExportedRunner:
        return write(Quantisation(images, tuple(INSIDE + name for name in (*always, *ranked[:num_kept]))))

    def attempt(num_kept: int) -> Attempt:
        runner = converted(num_kept)
        measured = batches(plan.labelled, preprocessing)
        answers = np.concatenate([first_answers(runner(batch)) for batch in measured])
        tried.append(Attempt(num_kept, answers, right_answers(answers, plan.labels)))
        _log.info("int8, %d layers kept: top-1 %.2f %%.", len(always) + num_kept, percent(tried[-1].right))
        return tried[-1]

    def drop(each: Attempt) -> float:
        return percent(before) - percent(each.right)

    def fits(each: Attempt) -> bool:
        return plan.max_drop is None or drop(each) <= plan.max_drop + ROUNDING

    chosen = _fewest(attempt, fits, most=len(ranked))
    if chosen is None:
        best = min(tried, key=drop)
        raise ExportError(
            f"int8 was to cost {plan.max_drop:g} points of top-1 at most, but the least that was reached is "
            f"{drop(best):.2f} (from {percent(before):.2f} % on {len(before)} images), with {len(always)} layers kept "
            f"by name or rule and {best.num_kept} of the other {len(ranked)} by sensitivity; all of these in integers "
            f"cost {drop(tried[0]):.2f}. Nothing was written. Allow more with --max_drop, calibrate on more images, or "
            "use --precision fp16."
        )
    if chosen is not tried[-1]:
        converted(chosen.num_kept)
    return Accuracy(
        num_images=len(plan.labels),
        num_calibration=len(plan.calibration),
        top1_fp32=percent(before),
        top1_all=percent(tried[0].right),
        top1=percent(chosen.right),
        drop=drop(chosen),
        drop_interval=paired_interval(before, chosen.right),
        same_answer=percent(chosen.answers == expected),
        max_drop=plan.max_drop,
        num_layers=len(names),
        kept=(*always, *ranked[: chosen.num_kept]),
        worst_layers=tuple((name, each.change) for name, each in zip(names[:NUM_WORST], ranking, strict=False)),
        num_conversions=len(tried) + (chosen is not tried[-1]),
    )


def _fewest(attempt: Callable[[int], Attempt], fits: Callable[[Attempt], bool], *, most: int) -> Attempt | None:
    """An attempt that fits and keeps about as few layers as any (to an eighth); None if not even the last does."""
    found, failed = attempt(0), 0
    while not fits(found):
        if (failed := found.num_kept) == most:
            return None
        found = attempt(min(most, max(1, 2 * failed)))
    while found.num_kept - failed > max(1, found.num_kept // 8):
        middle = attempt((failed + found.num_kept) // 2)
        found, failed = (middle, failed) if fits(middle) else (found, middle.num_kept)
    return found


def _as_graph(model: DeployedModel, images: np.ndarray) -> torch.Tensor:
    """Images as a runner takes them, as the graph does."""
    tensor = torch.from_numpy(images)
    if model.spec.pixels == "uint8":
        return tensor.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()  # b h w c
    return tensor
