"""The parts of a model timed against each other, each on what the model gives it."""

from collections.abc import Callable, Mapping, Sequence

import torch

from hybridvit.measure.latency import Latency, measure
from hybridvit.measure.profile.units import Call


def measure_parts(
    calls: Sequence[Call], more: Mapping[str, Callable[[], object]], *, device: str, rounds: int
) -> dict[str, Latency]:
    """The times of each call, by the path of its unit, and of `more` by name: all take turns, in the same rounds."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else (lambda: None)
    runs: dict[str, Callable[[], object]] = {call.unit.path: call.run for call in calls}
    return measure(runs | dict(more), wait=wait, rounds=rounds)
