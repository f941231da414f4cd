"""The operators of one call or one training step, by the block that they belong to, and the trace of it."""

import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from hybridvit.atomic import replacing
from hybridvit.measure.profile.units import Unit, watched

LABEL = "hybridvit "  # begins the names of blocks in a trace
BETWEEN = ""  # the path of what belongs to no unit
BACKWARD = "autograd::engine::evaluate_function"  # begins the name of the event around a backward function


@dataclass(frozen=True, kw_only=True)
class OperatorTime:
    """An operator of torch in one unit: its own time without that of operators that it calls."""

    path: str  # of the unit; "" for what lies in none
    name: str
    calls: int
    self_ms: float  # on a GPU the time of its kernels
    is_backward: bool = False

    def to_dict(self) -> dict[str, object]:
        """Plain types for JSON."""
        return asdict(self)


def profiled_operators(
    run: Callable[[], object], units: Sequence[Unit], *, device: str = "cpu", trace: Path | None = None
) -> list[OperatorTime]:
    """Profile one call of `run`, which must have run before; `trace` is a .json.gz for Perfetto.

    Neither stacks nor shapes are recorded, which keeps the trace small.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler itself writes to stderr (torch 2.14)
    is_cuda = device.startswith("cuda")
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_cuda else [])]
    open_labels: list[Any] = []

    def before(unit: Unit, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        open_labels.append(record_function(LABEL + unit.path))
        open_labels[-1].__enter__()

    def after(unit: Unit, result: Any) -> None:
        open_labels.pop().__exit__(None, None, None)

    with watched(units, before=before, after=after), profile(activities=activities) as profiler:
        run()
        if is_cuda:
            torch.cuda.synchronize()
    if trace is not None:
        _export(profiler, trace)
    return _sorted_out([event for event in profiler.events() or () if event.cpu_parent is None], is_cuda=is_cuda)


def folded_stacks(operators: Sequence[OperatorTime], units: Sequence[Unit], root: str) -> str:
    """Lines "model;stage;block;operator microseconds", which speedscope and flame graphs read."""
    places = {unit.path: f"stage {unit.stage};{unit.name}" for unit in units}
    lines = []
    for each in operators:
        pass_name = "backward " if each.is_backward else ""
        place = places.get(each.path, "between blocks")
        lines.append(f"{root};{place};{pass_name}{each.name} {max(1, round(each.self_ms * 1e3))}")
    return "\n".join(lines) + "\n"


def _export(profiler: profile, trace: Path) -> None:
    with tempfile.TemporaryDirectory() as folder, replacing(trace) as temporary:
        written = Path(folder) / "trace.json.gz"  # torch compresses what ends so
        profiler.export_chrome_trace(str(written))
        shutil.copyfile(written, temporary)


def _sorted_out(roots: Sequence[Any], *, is_cuda: bool) -> list[OperatorTime]:
    """Times by unit and operator. A backward function belongs where the forward one of its number ran."""
    owner_of_number: dict[int, str] = {}
    times: dict[tuple[str, str, bool], list[float]] = defaultdict(list)

    def add(event: Any, path: str, *, is_backward: bool) -> None:
        if not event.name.startswith(LABEL):
            own_us = event.self_device_time_total if is_cuda else event.self_cpu_time_total
            times[path, event.name.removeprefix(f"{BACKWARD}: "), is_backward].append(own_us / 1e3)

    for root in roots:
        if not root.name.startswith(BACKWARD):
            for event, path in _below(root, BETWEEN):
                if event.sequence_nr >= 0:
                    owner_of_number[event.sequence_nr] = path
                add(event, path, is_backward=False)
    for root in roots:
        if root.name.startswith(BACKWARD):
            for event, path in _below(root, owner_of_number.get(root.sequence_nr, BETWEEN)):
                add(event, path, is_backward=True)
    return [
        OperatorTime(path=path, name=name, calls=len(own), self_ms=sum(own), is_backward=is_backward)
        for (path, name, is_backward), own in times.items()
    ]


def _below(event: Any, path: str) -> Iterator[tuple[Any, str]]:
    """An event and all that it called, each with the unit that it lies in."""
    path = event.name.removeprefix(LABEL) if event.name.startswith(LABEL) else path
    yield event, path
    for child in event.cpu_children:
        yield from _below(child, path)
