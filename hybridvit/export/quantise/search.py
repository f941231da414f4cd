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
    search = _Search(model, original, preprocessing, plan, write, floating)
    chosen = _fewest(search.attempt, search.fits, most=len(search.ranked))
    if chosen is None:
        raise search.beyond_budget()
    return search.accuracy(chosen)


class _Search:
    """The attempts of one export: which layers are always kept, in which order the others are, and what each cost."""

    def __init__(
        self,
        model: DeployedModel,
        original: Original,
        preprocessing: Preprocessing,
        plan: QuantisationPlan,
        write: Write,
        floating: Sequence[str],
    ) -> None:
        self.preprocessing, self.plan, self.write = preprocessing, plan, write
        self.images = _as_graph(model, np.concatenate(list(batches(plan.calibration, preprocessing))))
        self.ranking = rank_layers(model, self.images[:: max(1, len(self.images) // NUM_RANKED)][:NUM_RANKED])
        self.names = [each.name.removeprefix(INSIDE) for each in self.ranking]
        fixed = {*matching(plan.keep, self.names), *(name.removeprefix(INSIDE) for name in floating)}
        self.always = [name for name in self.names if name in fixed]
        self.ranked = [name for name in self.names if name not in fixed]
        labelled = batches(plan.labelled, preprocessing)
        self.expected = np.concatenate([original(batch)[0].argmax(1) for batch in labelled])
        self.before = right_answers(self.expected, plan.labels)
        self.tried: list[Attempt] = []

    def converted(self, num_kept: int) -> ExportedRunner:
        kept = (*self.always, *self.ranked[:num_kept])
        return self.write(Quantisation(self.images, tuple(INSIDE + name for name in kept)))

    def attempt(self, num_kept: int) -> Attempt:
        runner = self.converted(num_kept)
        measured = batches(self.plan.labelled, self.preprocessing)
        answers = np.concatenate([first_answers(runner(batch)) for batch in measured])
        made = Attempt(num_kept, answers, right_answers(answers, self.plan.labels))
        self.tried.append(made)
        _log.info("int8, %d layers kept: top-1 %.2f %%.", len(self.always) + num_kept, percent(made.right))
        return made

    def drop(self, each: Attempt) -> float:
        return percent(self.before) - percent(each.right)

    def fits(self, each: Attempt) -> bool:
        return self.plan.max_drop is None or self.drop(each) <= self.plan.max_drop + ROUNDING

    def beyond_budget(self) -> ExportError:
        best = min(self.tried, key=self.drop)
        return ExportError(
            f"int8 was to cost {self.plan.max_drop:g} points of top-1 at most, but the least that was reached is "
            f"{self.drop(best):.2f} (from {percent(self.before):.2f} % on {len(self.before)} images), with "
            f"{len(self.always)} layers kept by name or rule and {best.num_kept} of the other {len(self.ranked)} by "
            f"sensitivity; all of these in integers cost {self.drop(self.tried[0]):.2f}. Nothing was written. Allow "
            "more with --max_drop, calibrate on more images, or use --precision fp16."
        )

    def accuracy(self, chosen: Attempt) -> Accuracy:
        """What `chosen` is worth; its file is the one that was written last."""
        num_conversions = len(self.tried)
        if chosen is not self.tried[-1]:
            self.converted(chosen.num_kept)
            num_conversions += 1
        worst = zip(self.names[:NUM_WORST], self.ranking, strict=False)
        return Accuracy(
            num_images=len(self.plan.labels),
            num_calibration=len(self.plan.calibration),
            top1_fp32=percent(self.before),
            top1_all=percent(self.tried[0].right),
            top1=percent(chosen.right),
            drop=self.drop(chosen),
            drop_interval=paired_interval(self.before, chosen.right),
            same_answer=percent(chosen.answers == self.expected),
            max_drop=self.plan.max_drop,
            num_layers=len(self.names),
            kept=(*self.always, *self.ranked[: chosen.num_kept]),
            worst_layers=tuple((name, each.change) for name, each in worst),
            num_conversions=num_conversions,
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
