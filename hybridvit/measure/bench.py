"""Measure models against each other: every combination of model, form and runtime in the same interleaved rounds."""

import csv
import io
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from hybridvit.checkpoints import load
from hybridvit.create import build
from hybridvit.errors import UsageError, nearest
from hybridvit.export.pipeline import export
from hybridvit.export.targets import exporter_for
from hybridvit.folding.fold import fold
from hybridvit.loading import is_exported
from hybridvit.measure.counts import Counts, count
from hybridvit.measure.latency import Latency, check_rounds, measure
from hybridvit.measure.machine import MachineCard, check_threads, machine_card
from hybridvit.measure.memory import enough_memory
from hybridvit.models.backbone import Backbone
from hybridvit.models.registry import list_models

Runtime = Literal["torch", "onnxruntime"]
Form = Literal["training", "folded"]
Name = TypeVar("Name", bound=str)
RUNTIMES: tuple[Runtime, ...] = ("torch", "onnxruntime")
FORMS: tuple[Form, ...] = ("training", "folded")
COLUMNS = (
    "model", "form", "runtime", "batch", "image_size", "threads", "precision", "device", "median_ms", "low_ms",
    "high_ms", "p90_ms", "p99_ms", "images_per_s", "rounds", "parameters", "multiply_adds",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class BenchRow:
    """One candidate and its times."""

    model: str
    form: Form
    runtime: Runtime
    latency: Latency
    counts: Counts


@dataclass(frozen=True, kw_only=True)
class BenchResult:
    """All rows of one run, and what they were measured with."""

    rows: tuple[BenchRow, ...]
    batch: int
    image_size: tuple[int, int]  # height, width in pixels
    threads: int
    device: str
    machine: MachineCard
    precision: str = "fp32"

    def records(self) -> list[dict[str, object]]:
        """One flat record per row, with the keys of COLUMNS; times per batch in milliseconds."""
        return [self._record(row) for row in self.rows]

    def csv(self) -> str:
        """The records as CSV."""
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.records())
        return text.getvalue()

    def json(self) -> str:
        """Everything, the machine card included, on one line."""
        return json.dumps({"bench": self.records(), "machine": self.machine.to_dict()}, ensure_ascii=False)

    def _record(self, row: BenchRow) -> dict[str, object]:
        low, high = row.latency.interval_ms
        median = row.latency.median_ms
        return {
            "model": row.model,
            "form": row.form,
            "runtime": row.runtime,
            "batch": self.batch,
            "image_size": "x".join(str(side) for side in self.image_size),
            "threads": self.threads,
            "precision": self.precision,
            "device": self.device,
            "median_ms": round(median, 4),
            "low_ms": round(low, 4),
            "high_ms": round(high, 4),
            "p90_ms": round(row.latency.p90_ms, 4),
            "p99_ms": round(row.latency.p99_ms, 4),
            "images_per_s": round(self.batch * 1e3 / median, 2),
            "rounds": len(row.latency.times_ms),
            "parameters": row.counts.parameters,
            "multiply_adds": row.counts.multiply_adds,
        }


def bench(
    models: Sequence[str | Backbone],
    *,
    runtimes: Sequence[str] = RUNTIMES,
    forms: Sequence[str] = FORMS,
    batch: int = 1,
    image_size: tuple[int, int] | None = None,
    threads: int | None = None,
    device: str = "cpu",
    rounds: int = 100,
    warmup: int = 10,
    budget_s: float | None = None,
    on_round: Callable[[int], None] = lambda _: None,
) -> BenchResult:
    """Time `models` (names, checkpoints, or models with a card) in every runtime and form, interleaved, in fp32.

    The training form is measured in PyTorch only: ONNX Runtime gets what is deployed, the folded form. In eval mode
    an unfolded model already computes on kernels that it folds for itself, so the two forms may be close.
    `image_size` is (height, width) in pixels, by default that of the first model; `threads` are those of both
    runtimes, by default all that this process may use. Latencies are per batch. Raises UsageError for an unknown
    model, runtime, form or device, and for nothing to measure.
    """
    asked_forms, asked_runtimes = _chosen("form", forms, FORMS), _chosen("runtime", runtimes, RUNTIMES)
    _check(models, asked_runtimes, batch, device)
    check_rounds(rounds, warmup)
    check_threads(threads)
    loaded = [(_label(model), _load(model)) for model in models]
    size = image_size or loaded[0][1].card.preprocessing.image_size
    card = machine_card()
    threads = threads or card.cores
    rows: list[tuple[str, Form, Runtime, Counts]] = []
    calls: dict[str, Callable[[], object]] = {}
    with _torch_threads(threads), tempfile.TemporaryDirectory(prefix="hybridvit-bench-") as folder:
        for index, (label, model) in enumerate(loaded):
            with enough_memory((batch, model.in_chans, *size)):
                images = torch.randn(batch, model.in_chans, *size)
            for form, runtime in _combinations(model, asked_forms, asked_runtimes):
                candidate = fold(model) if form == "folded" else model
                rows.append((label, form, runtime, count(candidate, size)))
                if runtime == "torch":
                    calls[f"{len(rows)}"] = _torch_call(candidate, images, device)
                else:
                    file = Path(folder, f"{index}.onnx")
                    export(model, file, image_size=size)
                    runner = exporter_for("onnx").load_runner(file, threads=threads)
                    calls[f"{len(rows)}"] = partial(runner, images.numpy())
        times = measure(calls, wait=_wait(device), rounds=rounds, warmup=warmup, budget_s=budget_s, on_round=on_round)
    return BenchResult(
        rows=tuple(
            BenchRow(model=label, form=form, runtime=runtime, latency=latency, counts=counts)
            for (label, form, runtime, counts), latency in zip(rows, times.values(), strict=True)
        ),
        batch=batch,
        image_size=size,
        threads=threads,
        device=device,
        machine=card,
    )


def _load(model: str | Backbone) -> Backbone:
    """A model in eval mode: given, randomly initialised by name, or from a checkpoint."""
    if isinstance(model, Backbone):
        return model.eval()
    if model in list_models():
        return build(model).eval()
    if is_exported(model):
        raise UsageError(f"{model} is exported already. Give the weights it came from: they are exported and measured.")
    if Path(model).suffix or Path(model).exists():
        return load(model)
    raise UsageError(f"'{model}' is neither a model nor a checkpoint. Nearest models: {nearest(model, list_models())}.")


def _label(model: str | Backbone) -> str:
    return model if isinstance(model, str) else model.card.architecture


def _chosen(kind: str, asked: Sequence[str], known: tuple[Name, ...]) -> list[Name]:
    """The names asked for, in the order of the table, all of them known."""
    for name in asked:
        if name not in known:
            raise UsageError(f"There is no {kind} '{name}'. Nearest: {nearest(name, known)}.")
    return [name for name in known if name in asked]


def _check(models: Sequence[str | Backbone], runtimes: Sequence[Runtime], batch: int, device: str) -> None:
    if not models:
        raise UsageError("There is nothing to measure. Name at least one model.")
    if batch < 1:
        raise UsageError(f"The batch is {batch}, but at least one image must be in it. Use --batch 1.")
    if device.partition(":")[0] not in ("cpu", "cuda"):
        raise UsageError(f"The device is '{device}', but this measures on cpu or cuda. Use --device cpu.")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"The device is '{device}', but torch sees no CUDA GPU here. Use --device cpu.")
    if "onnxruntime" in runtimes:
        exporter = exporter_for("onnx")
        exporter.require(exporter.writer_packages)


def _combinations(
    model: Backbone, forms: Sequence[Form], runtimes: Sequence[Runtime]
) -> Iterator[tuple[Form, Runtime]]:
    for form in forms:
        if form == "training" and model.card.form == "folded" and "folded" in forms:
            continue  # a folded checkpoint has no other form
        for runtime in runtimes:
            if runtime == "torch" or form == "folded" or "folded" not in forms:
                yield ("folded" if runtime == "onnxruntime" else form), runtime


def _torch_call(model: nn.Module, images: Tensor, device: str) -> Callable[[], object]:
    model, images = model.to(device), images.to(device)

    def run() -> Tensor:
        with torch.inference_mode(), enough_memory(images.shape):
            return model(images)

    return run


def _wait(device: str) -> Callable[[], None]:
    """What blocks until the device is idle."""
    return torch.cuda.synchronize if device.startswith("cuda") else lambda: None


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
