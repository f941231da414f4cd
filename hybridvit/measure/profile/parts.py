"""The parts of a model timed against each other, each on what the model gives it."""

from collections.abc import Callable, Mapping, Sequence

import torch

from hybridvit.errors import UsageError
from hybridvit.machine.facts import check_threads
from hybridvit.measure.conditions import Conditions, Watch
from hybridvit.measure.latency import Latency, check_rounds, measure
from hybridvit.measure.plan import check_device
from hybridvit.measure.profile.units import Call
from hybridvit.measure.subject import Subject


def check_parts(subject: Subject, *, batch: int, rounds: int, threads: int | None, device: str) -> None:
    """Raise UsageError for what has no parts to watch, or for numbers that cannot be."""
    if subject.kind == "exported":
        raise UsageError(
            f"{subject.name} is a file of {subject.runtimes[0]}, which runs as one piece: its parts cannot be "
            "watched. Name the checkpoint that it was exported from."
        )
    if subject.kind not in ("ours", "weights"):
        raise UsageError(
            f"{subject.name} is no model of hybridvit in PyTorch, whose parts are known. See `hybridvit list`."
        )
    if batch < 1:
        raise UsageError(f"The batch is {batch}, but at least one image must be in it. Use --batch 1.")
    check_rounds(rounds)
    check_threads(threads)
    check_device(device)


def measure_parts(
    calls: Sequence[Call], more: Mapping[str, Callable[[], object]], *, device: str, rounds: int
) -> tuple[dict[str, Latency], Conditions]:
    """The times of each call, by the path of its unit, and of `more` by name: all take turns, in the same rounds."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else (lambda: None)
    runs: dict[str, Callable[[], object]] = {call.unit.path: call.run for call in calls}
    watch = Watch(())
    times = measure(runs | dict(more), wait=wait, rounds=rounds)
    return times, watch.conditions({name: latency.times_ms for name, latency in times.items()}, calls=1)
