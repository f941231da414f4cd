"""Several processes of one candidate: whose turn it is, what is said of them, and what becomes of one that is lost."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from bench_results import candidate, row

from hybridvit.errors import OutOfMemory, ProcessLost
from hybridvit.measure import bench as bench_module
from hybridvit.measure.bench import bench
from hybridvit.measure.candidate import Candidate
from hybridvit.measure.latency import Latency, Timed
from hybridvit.measure.notes import notes_on
from hybridvit.measure.options import BenchOptions
from hybridvit.measure.processes import Processes
from hybridvit.measure.result import LATER, BenchResult, BenchRow, read_result


class Worker:
    """One that computes nothing: every call takes the next of `times`; it dies after the last."""

    def __init__(self, *times: float, faults: int | None = 0, memory_mib: float | None = 10.0) -> None:
        self.candidate, self.times, self.faults = candidate(), list(times), faults
        self.memory_mib, self.is_stable, self.is_pinned, self.pid = memory_mib, True, True, 1

    def turn(self, calls: int) -> Timed:
        if not self.times:
            raise ProcessLost("its process ended with 1: gone")
        return Timed(times_ms=[self.times.pop(0) for _ in range(calls)], faults=self.faults)

    def end(self) -> None:
        """Nothing to end."""


def taken(workers: Sequence[Worker], turns: int, calls: int = 1) -> tuple[Processes, list[float]]:
    """The processes of these, and the times of so many turns."""
    processes = Processes(workers[0])
    for worker in workers[1:]:
        processes.add(worker)
    return processes, [time for _ in range(turns) for time in processes.turn(calls)]


def test_processes_take_turns_and_a_record_says_which_turn_was_of_which() -> None:
    processes, times = taken([Worker(1, 1, 4, 4), Worker(2, 2, 5, 5, 7, 7), Worker(3, 3, 6, 6)], 6, calls=2)
    assert times == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
    record = processes.row(times, 2, None).record()
    assert record["turns_ms"] == [[1, 4], [2, 5], [3, 6]]
    assert (record["processes"], record["process_spread"]) == (3, round(4.5 / 2.5 - 1, 4))
    processes.turn(2)  # of a round that is interrupted
    assert processes.row(times, 2, None).record() == record


def test_the_interval_and_a_note_hold_what_differs_between_processes() -> None:
    fast, slow = [30 + 0.01 * turn for turn in range(20)], [36 + 0.01 * turn for turn in range(20)]
    processes, times = taken([Worker(*fast), Worker(*fast), Worker(*slow)], 60)
    unlike = processes.row(times, 1, None)
    low, high = unlike.latency.interval_ms
    assert low <= 30.1
    assert high >= 36.09
    assert 30 <= unlike.latency.median_ms <= 30.2
    (note,) = notes_on([unlike, row((30.0,) * 9)], processes=3)
    assert "differ: fastvit_t8, onnxruntime, fp32, batch 1, 256x256 by 20% (30.09 to 36.09 ms)." in note


def test_processes_whose_turns_are_noisy_are_not_said_to_differ() -> None:
    processes, times = taken([Worker(30, 40, 31, 39), Worker(34, 44, 33, 42)], 8)
    noisy = processes.row(times, 1, None)
    assert noisy.latency.process_spread > 0.05
    assert not list(notes_on([noisy], processes=2))


def test_one_that_is_lost_leaves_its_turns_to_the_others_until_there_is_none() -> None:
    processes, times = taken([Worker(3), Worker(3, 3, 3)], 4)
    (note,) = notes_on([processes.row(times, 1, None)], processes=2)
    assert note.startswith("Not all 2 processes could be had")
    assert note.endswith("Of the first: its process ended with 1: gone")
    with pytest.raises(ProcessLost, match="with 1: gone"):
        processes.turn(1)


def test_page_faults_are_those_of_the_process_that_has_most() -> None:
    def of(*faults: int | None) -> BenchRow:
        processes, times = taken([Worker(*(9.0,) * 10, faults=each) for each in faults], 9, calls=2)
        return processes.row(times, 2, None)

    lottery, quiet, unknown = of(0, 8024), of(3, 90), of(None, None)
    assert [each.record()["faults_per_call"] for each in (lottery, quiet, unknown)] == [4012, 45, None]
    (note,) = notes_on([lottery, quiet, unknown], processes=2)
    assert note.startswith("Page faults slow it down: 4,012 a call in fastvit_t8, onnxruntime, fp32, batch 1, 256x256.")
    assert "use a smaller batch" in note


def test_what_had_not_become_stable_is_named() -> None:
    (note,) = notes_on([dataclasses.replace(row((9.0,) * 9), is_stable=False)], processes=1)
    assert note == f"After 10 seconds of warm-up the time was not stable yet: {candidate().label}."


def measured(
    monkeypatch: pytest.MonkeyPatch, usable_mib: Sequence[int], refused: Sequence[int] = ()
) -> tuple[BenchResult, list[str]]:
    """Two models, three processes each; `usable_mib` before each is opened, and the numbers of those that fail."""
    real, left, opened = bench_module.limits, list(usable_mib), []

    def limits(path: Path) -> object:
        free = left.pop(0) if len(left) > 1 else left[0]
        return dataclasses.replace(real(path), memory_free=free * 2**20, memory_limit=None)

    class Opened(Worker):
        def __init__(self, candidate: Candidate, *, packages: Sequence[str]) -> None:
            super().__init__(*(9.0,) * 100, memory_mib=400)
            self.candidate = candidate
            opened.append(self)
            if len(opened) - 1 in refused:
                raise OutOfMemory("its process was ended by the system")

    monkeypatch.setattr(bench_module, "limits", limits)
    monkeypatch.setattr(bench_module, "Worker", Opened)
    options = BenchOptions(runtimes=["torch"], rounds=9, calls=1, threads=1, processes=3)
    result = bench(["fastvit_debug", "fastervit_debug"], options)
    return result, [worker.candidate.subject.name for worker in opened]


def test_first_one_process_of_each_is_opened_then_more_as_far_as_the_memory_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result, opened = measured(monkeypatch, [1000] * 7 + [450])  # for the spare, two to prepare, two and two to open
    assert opened == ["fastvit_debug", "fastervit_debug"] * 2
    assert [record["processes"] for record in result.records()] == [2, 2]
    (note,) = result.notes
    assert "fastvit_debug, torch, fp32, batch 1, 32x32; fastervit_debug" in note
    assert "it needs more memory than the device has: 0.4 GiB are free" in note
    assert result.settings["processes"] == 3


def test_one_process_that_cannot_be_opened_costs_only_that(monkeypatch: pytest.MonkeyPatch) -> None:
    result, opened = measured(monkeypatch, [10_000], refused=[2])
    assert opened == ["fastvit_debug", "fastervit_debug", "fastvit_debug", "fastervit_debug", "fastervit_debug"]
    assert [record["processes"] for record in result.records()] == [1, 3]
    assert not result.skipped
    (note,) = result.notes
    assert "ended by the system" in note
    assert note in result.warnings()


def test_a_result_of_before_there_were_processes_is_read(tmp_path: Path) -> None:
    record = row((9.0,) * 9).record()
    assert record["processes"] == 1
    old = {name: value for name, value in record.items() if name not in (*LATER, "turns_ms")}
    (tmp_path / "old.json").write_text(json.dumps({"format": 1, "bench": [old]}), encoding="utf-8")
    assert read_result(tmp_path / "old.json")["bench"] == [old]


def test_a_latency_without_numbers_of_processes_is_of_one() -> None:
    latency = Latency(times_ms=(1.0, 2.0, 3.0))
    assert latency.turns_by_process_ms == ((1.0, 2.0, 3.0),)
    assert latency.process_spread == 0
