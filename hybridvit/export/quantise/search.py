"""Convert to integers, measure, and keep the fewest layers in floating point that a budget of accuracy asks for."""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hybridvit.batch import Batch
from hybridvit.card import ModelCard
from hybridvit.data.loader import make_eval_loader
from hybridvit.errors import ExportError, UsageError
from hybridvit.evaluate.agreement import agreement
from hybridvit.evaluate.run import Judge, evaluate
from hybridvit.export.draft import prepared_for
from hybridvit.export.embeddings import EMBEDDINGS
from hybridvit.export.exporter import Quantisation
from hybridvit.export.graph import DeployedModel, heads_in_float32, largest
from hybridvit.export.original import Original
from hybridvit.export.quantise.alike import MAX_LOST, Alike
from hybridvit.export.quantise.plan import QuantisationPlan, matching
from hybridvit.export.quantise.quality import Quality, drop_interval, value_of
from hybridvit.export.quantise.sensitivity import rank_layers
from hybridvit.export.runners import ExportedRunner
from hybridvit.task import Outputs, find_task

_log = logging.getLogger(__name__)

BATCH = 32  # images in memory at a time
NUM_RANKED = 8  # images that decide which layers are sensitive: every layer is run on them
NUM_WORST = 10  # layers in the report
ROUNDING = 1e-9  # of the subtraction
ABSENT = -1e9  # the logit of a class that a file does not name among the most probable
INSIDE = "backbone."  # where the model is inside a deployed one; names are given and reported without it

Write = Callable[[Quantisation], ExportedRunner]
"""Convert, in place of what was converted before, and open the file."""


@dataclass(frozen=True)
class Attempt:
    """A conversion that was measured."""

    num_kept: int  # of the ranked layers
    value: float  # of the headline


def quantise(
    model: DeployedModel,
    original: Original,
    card: ModelCard,
    plan: QuantisationPlan,
    write: Write,
    *,
    floating: Sequence[str] = (),
) -> Quality:
    """Write a file of integers within the plan's budget, and measure it in its own runtime.

    `card` is that of the file, `floating` the layers that its target keeps by a rule. With a budget, layers
    return to floating point in the order of their sensitivity: 1, 2, 4, ... until the drop is small enough, then by
    bisection to about the fewest. Raises ExportError with the best that was reached if the budget cannot be met,
    UsageError for unknown layers in `plan.keep` or a graph that gives no answers.
    """
    if not model.spec.gives_answers and model.spec.returns != EMBEDDINGS:
        raise UsageError(
            f"The file is to return {model.spec.returns} in int8, but what integers cost is measured as "
            f"{find_task(card.task).headline.title}, which needs answers. Leave --returns out, or use --precision fp16."
        )
    search = _Search(model, original, card, plan, write, floating)
    chosen = _fewest(search.attempt, search.fits, most=len(search.ranked))
    if chosen is None:
        raise search.beyond_budget()
    return search.quality(chosen)


class _Search:
    """The attempts of one export: which layers are always kept, in which order the others are, and what each cost."""

    def __init__(
        self,
        model: DeployedModel,
        original: Original,
        card: ModelCard,
        plan: QuantisationPlan,
        write: Write,
        floating: Sequence[str],
    ) -> None:
        self.model, self.original, self.card, self.plan, self.write = model, original, card, plan, write
        task, is_alike = find_task(card.task), model.spec.returns == EMBEDDINGS
        self.judge: Judge = Alike(original) if is_alike else task
        self.quantity = self.judge.headline
        self.max_drop = MAX_LOST if is_alike and plan.max_drop is None else plan.max_drop
        of_one_size = prepared_for(card.preprocessing, dataclasses.replace(model.spec, range_px=None))
        calibration = plan.calibration.opened(dataclasses.replace(card, preprocessing=of_one_size))
        labelled = plan.labelled.opened(card)
        self.images = _as_graph(model, torch.stack([calibration[place][0] for place in range(len(calibration))]))
        self.ranking = rank_layers(model, self.images[:: max(1, len(self.images) // NUM_RANKED)][:NUM_RANKED])
        self.names = [each.name.removeprefix(INSIDE) for each in self.ranking]
        self.heads = heads_in_float32(model)
        inside = tuple(f"{name}." for name in self.heads)
        by_rule = [*floating, *(each.name for each in self.ranking if each.name.startswith(inside))]
        fixed = {*matching(plan.keep, self.names), *(name.removeprefix(INSIDE) for name in by_rule)}
        self.always = [name for name in self.names if name in fixed]
        self.ranked = [name for name in self.names if name not in fixed]
        self.loader = make_eval_loader(labelled, collate=task.collate, batch_size=BATCH)
        self.before = value_of(evaluate(self.expected, self.judge, self.loader, card).scores, self.quantity)
        self.tried: list[Attempt] = []

    def expected(self, batch: Batch) -> Outputs:
        """What the model answers as it was given."""
        answers = self.original(batch.inputs.numpy())
        if name := self.model.spec.argmax:
            return {name: largest(torch.from_numpy(answers[0])).numpy()}
        spec = self.model.spec
        return dict(zip(spec.answers if spec.gives_answers else spec.outputs, answers, strict=True))

    def given(self, batch: Batch) -> Outputs:
        """What the file that was written last answers."""
        outputs = self.runner(batch.inputs.numpy())
        if self.model.spec.top_k is None:
            return outputs
        logits = np.full((len(batch.inputs), self.model.backbone.num_classes), ABSENT, np.float32)
        chances = np.log(np.maximum(outputs["probabilities"], np.finfo(np.float32).tiny))
        np.put_along_axis(logits, outputs["indices"].astype(np.int64), chances, 1)
        return {"logits": logits}

    def convert(self, num_kept: int) -> None:
        kept = (*self.always, *self.ranked[:num_kept])
        self.runner = self.write(Quantisation(self.images, (*self.heads, *(INSIDE + name for name in kept))))

    def attempt(self, num_kept: int) -> Attempt:
        self.convert(num_kept)
        scores = evaluate(self.given, self.judge, self.loader, self.card).scores
        self.tried.append(Attempt(num_kept, value_of(scores, self.quantity)))
        text = self.quantity.text(self.tried[-1].value)
        _log.info("int8, %d layers kept: %s %s.", len(self.always) + num_kept, self.quantity.title, text)
        return self.tried[-1]

    def drop(self, each: Attempt) -> float:
        return self.quantity.lost(self.before, each.value)

    def fits(self, each: Attempt) -> bool:
        return self.max_drop is None or self.drop(each) <= self.max_drop + ROUNDING

    def beyond_budget(self) -> ExportError:
        quantity, best = self.quantity, min(self.tried, key=self.drop)
        of_unit = f"{quantity.unit_of_losses} " if quantity.unit_of_losses else ""
        least, all_of_them = (f"{self.drop(each):.{quantity.decimals}f}" for each in (best, self.tried[0]))
        return ExportError(
            f"int8 was to cost {self.max_drop:g} {of_unit}of {quantity.title} at most, but the "
            f"least that was reached is {least} (from {quantity.text(self.before)} on {len(self.plan.labelled.paths)} "
            f"images), with {len(self.always)} layers kept by name or rule and {best.num_kept} of the other "
            f"{len(self.ranked)} by sensitivity; all of these in integers cost {all_of_them}. Nothing was written. "
            "Allow more with --max_drop, calibrate on more images, or use --precision fp16."
        )

    def quality(self, chosen: Attempt) -> Quality:
        """What `chosen` is worth; its file is the one that was written last."""
        is_written = chosen is self.tried[-1]
        if not is_written:
            self.convert(chosen.num_kept)
        found = agreement(self.expected, self.given, self.judge, self.loader, self.card)
        after, worst = value_of(found.second, self.quantity), zip(self.names[:NUM_WORST], self.ranking, strict=False)
        return Quality(
            quantity=self.quantity,
            num_images=found.num_samples,
            num_calibration=len(self.images),
            before=self.before,
            everything=self.tried[0].value,
            after=after,
            drop=self.quantity.lost(self.before, after),
            drop_interval=drop_interval(self.quantity, found.first, found.second),
            same_answer=100 * found.num_same / found.num_samples,
            max_drop=self.max_drop,
            num_layers=len(self.names),
            kept=(*self.always, *self.ranked[: chosen.num_kept]),
            worst_layers=tuple((name, each.change) for name, each in worst),
            num_conversions=len(self.tried) + (not is_written),
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


def _as_graph(model: DeployedModel, images: torch.Tensor) -> torch.Tensor:
    """Images as a runner takes them, as the graph does."""
    if model.spec.pixels == "uint8":
        return images.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()  # b h w c
    return images
