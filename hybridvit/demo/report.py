"""What folding, export and measuring add to the report of a run."""

import dataclasses
from collections.abc import Sequence

from hybridvit.charts.tradeoff_rows import RUNTIME_NAMES
from hybridvit.evaluate.run import Evaluation
from hybridvit.export.pipeline import ExportReport
from hybridvit.folding.report import FoldReport
from hybridvit.measure.bench import BenchResult, BenchRow
from hybridvit.quantity import Quantity
from hybridvit.report.content import Bar, Change, Figure, Report

FORM_NAMES = {"training": "training form", "folded": "folded"}


def with_deployment(
    report: Report,
    *,
    title: str,
    lead: str,
    headline: Quantity,
    evaluation: Evaluation,
    folding: FoldReport,
    nodes: tuple[int, int],
    multiply_adds: tuple[int, int],
    exported: ExportReport,
    measured: BenchResult,
    commands: Sequence[tuple[str, str]],
) -> Report:
    """The report of a run, with what became of its model; `nodes` and `multiply_adds` are (before, after) folding."""
    is_right = evaluation.scores.per_image
    right = None if is_right is None or is_right.dtype != bool else int(is_right.sum())
    by_form = {(row.candidate.form, row.candidate.runtime): row.latency.median_ms for row in measured.rows}
    deployed = by_form["folded", "onnxruntime"]
    return dataclasses.replace(
        report,
        title=title,
        lead=lead,
        figures=[
            Figure(
                value=f"{evaluation.scores.values[headline.name]:.1f} {headline.unit}",
                label=f"Test {headline.title}",
                note=headline.note if right is None else f"{right:,} of {evaluation.num_samples:,} right",
            ),
            Figure(value=f"{folding.max_error:.0e}", label="Folding changes", note="of the largest output, at most"),
            Figure(
                value=f"{exported.parity.max_error:.0e}",
                label=f"Export to {exported.target.upper()} changes",
                note=f"same answer on {exported.parity.num_same} of {exported.parity.real_images} images",
            ),
            Figure(
                value=f"{deployed:.1f} ms",
                label="ONNX Runtime, per image",
                note=f"{by_form['training', 'torch'] / deployed:.1f} times as fast as before folding in PyTorch",
            ),
        ],
        bars=[_bar(row) for row in measured.rows],
        bars_note=_conditions(measured),
        changes=[
            Change(quantity="Operations in the graph", before=nodes[0], after=nodes[1]),
            Change(
                quantity="Layers with weights",
                before=sum(folding.layers_before.values()),
                after=sum(folding.layers_after.values()),
            ),
            Change(quantity="Parameters", before=folding.parameters_before, after=folding.parameters_after),
            Change(quantity="Multiply-adds", before=multiply_adds[0], after=multiply_adds[1]),
        ],
        folding_note=_folding_note(folding),
        machine=measured.machine.lines(),
        commands=commands,
        commands_title="Do it again",
    )


def _folding_note(folding: FoldReport) -> str:
    return (
        f"{len(folding.folded)} blocks lost their branches, norms and layer scales: what these did is now part of the "
        f"convolutions and linear layers beside them. Left as they were: {', '.join(folding.left) or 'none'}."
    )


def _bar(row: BenchRow) -> Bar:
    low, high = row.latency.interval_ms
    return Bar(
        label=f"{RUNTIME_NAMES.get(row.candidate.runtime, row.candidate.runtime)}, {FORM_NAMES[row.candidate.form]}",
        median_ms=row.latency.median_ms,
        p90_ms=row.latency.p90_ms,
        low_ms=low,
        high_ms=high,
    )


def _conditions(measured: BenchResult) -> str:
    first = measured.rows[0]
    of, rounds = first.candidate, len(first.latency.turns_ms)
    return (
        f"Batch {of.batch}, {of.image_size[0]}×{of.image_size[1]} px, {of.threads} threads, "
        f"{of.precision}. Median of {rounds} interleaved rounds, its 95 % interval, and p90."
    )
