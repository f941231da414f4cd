"""`hybridvit profile`: sums, counts and bytes of the parts, and the files that it writes. No test asks for a speed."""

import gzip
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

import hybridvit
from hybridvit.charts.profile_page import write_page
from hybridvit.errors import UsageError
from hybridvit.measure.conditions import Conditions, Watch
from hybridvit.measure.counts import count
from hybridvit.measure.profile.backward import example_targets, timed_steps
from hybridvit.measure.profile.profile import ProfileOptions, profile_model
from hybridvit.measure.profile.result import Profile
from hybridvit.measure.profile.roof import Roof
from hybridvit.measure.profile.saved import saved_bytes, storage_of
from hybridvit.measure.profile.units import recorded_calls, units_of

MODELS = ("fastvit_debug", "fastervit_debug")
SIZE = (64, 64)


@pytest.fixture(scope="module", autouse=True)
def quick_roofs() -> Iterator[None]:
    """Roofs that nobody has to wait for."""
    roof = Roof(fp32_flop_per_s=1e11, bf16_flop_per_s=4e11, bytes_per_s=1e10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hybridvit.measure.profile.profile.measure_roof", lambda _: roof)
        yield


def profiled(name: str, **options: object) -> Profile:
    return profile_model(name, ProfileOptions(threads=1, rounds=8, image_size=SIZE, **options))


def bytes_in_graph(loss: torch.Tensor, resident: set[int]) -> int:
    """What the nodes of autograd's graph hold, found by walking it: torch names saved values `_saved_...`."""
    nodes, known, storages = [loss.grad_fn], set(), {}
    while nodes:
        node = nodes.pop()
        if node is None or node in known:
            continue
        known.add(node)
        nodes += [below for below, _ in node.next_functions]
        held = [getattr(node, name) for name in dir(node) if name.startswith("_saved_")]
        held += list(getattr(node, "saved_tensors", ()))
        for value in held:
            for tensor in value if isinstance(value, tuple | list) else (value,):
                if not isinstance(tensor, torch.Tensor) or storage_of(tensor) in resident:
                    continue
                if tensor.ndim or tensor.dtype not in (torch.float64, torch.int64):  # else a number of Python
                    storages[storage_of(tensor)] = tensor.untyped_storage().nbytes()
    return sum(storages.values())


@pytest.mark.parametrize("name", MODELS)
def test_saved_bytes_are_those_that_a_walk_of_the_graph_finds(name: str) -> None:
    model = hybridvit.create_model(name).train()
    images = torch.randn(4, 3, *SIZE)
    units = units_of(model, "block")
    found = saved_bytes(model, units, images)
    resident = {storage_of(tensor) for tensor in (*model.parameters(), *model.buffers())}
    loss = F.cross_entropy(model(images), example_targets(model, images))
    assert sum(found.values()) == bytes_in_graph(loss, resident) > 0
    assert found == saved_bytes(model, units, images)  # the same at every call
    assert found[""] < 0.05 * sum(found.values())  # nearly all of it belongs to a block


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("depth", ["stage", "block"])
def test_parts_count_as_much_as_the_whole(name: str, depth: str) -> None:
    found = profiled(name, depth=depth, batch=2)
    folded = hybridvit.fold(hybridvit.create_model(name).eval(), image_size=SIZE if name == "fastervit_debug" else None)
    whole = count(folded, SIZE)
    between = {"fastvit_debug": 0, "fastervit_debug": found.batch * whole.multiply_adds * 0.02}[name]
    counted = sum(cost.multiply_adds for cost in found.costs)
    assert 0 <= found.batch * whole.multiply_adds - counted <= between
    assert sum(cost.parameters for cost in found.costs) <= whole.parameters
    assert [*dict.fromkeys(cost.stage for cost in found.costs)] == ["stem", "1", "2", "3", "4", "head"]
    assert all(cost.moved_bytes >= cost.weight_bytes > 0 for cost in found.costs)


def test_inference_is_the_sum_of_its_parts() -> None:
    found = profiled("fastvit_debug")
    assert 0.3 < found.measured_share < 3  # a machine that is shared; docs/profile.md has what was measured
    assert found.between_ms == pytest.approx(found.whole.median_ms * (1 - found.measured_share))
    assert all(cost.forward.low_ms <= cost.forward.median_ms <= cost.forward.high_ms for cost in found.costs)
    assert all(cost.backward is None and cost.saved_bytes is None for cost in found.costs)


@pytest.mark.parametrize("name", MODELS)
def test_every_millisecond_of_a_step_is_somewhere(name: str) -> None:
    model = hybridvit.create_model(name).train()
    optimizer = torch.optim.AdamW(model.parameters())
    steps = timed_steps(model, units_of(model, "block"), torch.randn(2, 3, *SIZE), optimizer, steps=8)
    for step in steps:
        parts = sum(step.forward.values()) + sum(step.backward.values())
        assert parts + step.between + step.loss + step.optimizer == pytest.approx(step.whole)
        assert all(ms > 0 for ms in (*step.forward.values(), *step.backward.values()))
        assert step.between > -1e-6 * step.whole  # no time counts twice


@pytest.mark.parametrize("name", MODELS)
def test_no_time_of_a_step_counts_twice_however_long_it_is_between_two_marks(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = itertools.count()
    monkeypatch.setattr("hybridvit.measure.profile.backward.time", SimpleNamespace(perf_counter=lambda: next(marks)))
    model = hybridvit.create_model(name).train()
    optimizer = torch.optim.AdamW(model.parameters())
    (step,) = timed_steps(model, units_of(model, "block"), torch.randn(2, 3, *SIZE), optimizer, steps=1)
    forward_ms = 1e3 * (2 * len(step.forward) + 1)  # marks: at the start and the end of each unit, and of the whole
    assert sum(step.backward.values()) <= step.whole - step.loss - step.optimizer - forward_ms
    assert all(ms > 0 for ms in (*step.forward.values(), *step.backward.values()))


def test_training_tells_memory_of_every_kind() -> None:
    found = profiled("fastvit_debug", mode="training", batch=2)
    for cost in found.costs:
        assert cost.gradient_bytes == cost.weight_bytes == 4 * cost.parameters
        assert cost.optimizer_bytes is not None
        assert cost.optimizer_bytes >= 8 * cost.parameters  # AdamW: two numbers for each weight
    assert set(found.others_ms) == {"loss", "optimizer"}
    assert json.loads(json.dumps(found.to_dict()))["costs"][0]["saved_bytes"] > 0


def test_operators_lie_in_their_blocks_and_files_open(tmp_path: Path) -> None:
    trace, stacks, page = tmp_path / "t.json.gz", tmp_path / "s.txt", tmp_path / "p.html"
    options = ProfileOptions(mode="training", depth="operator", batch=2, threads=1, rounds=8, image_size=SIZE)
    found = profile_model("fastvit_debug", options, trace=trace, stacks=stacks)
    paths = {cost.path for cost in found.costs}
    for is_backward in (False, True):
        assert paths <= {each.path for each in found.operators if each.is_backward == is_backward}
    assert trace.stat().st_size < 300_000
    names = {event.get("name") for event in json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]}
    assert {f"hybridvit {path}" for path in paths} <= names
    lines = stacks.read_text().splitlines()
    assert all(line.startswith("fastvit_debug;") and int(line.rpartition(" ")[2]) > 0 for line in lines)
    write_page(found, [("Processor", "<one>")], page)
    text = page.read_text()
    assert text.count('class="cell"') > len(paths)
    assert "&lt;one&gt;" in text
    assert "http" not in text.replace("http-equiv", "")  # nothing outside is loaded


def test_roofs_say_what_binds() -> None:
    roof = Roof(fp32_flop_per_s=100.0, bf16_flop_per_s=400.0, bytes_per_s=10.0)
    assert roof.ridge == 10
    assert [roof.binds(intensity) for intensity in (1.0, 20.0)] == ["memory", "compute"]
    assert [roof.attainable(intensity) for intensity in (1.0, 20.0)] == [10, 100]


@pytest.mark.parametrize("name", MODELS)
def test_blocks_alone_answer_as_in_the_model(name: str) -> None:
    model = hybridvit.create_model(name).eval()
    images = torch.randn(2, 3, *SIZE)
    with torch.inference_mode():
        calls = recorded_calls(model, units_of(model, "block"), images)
        torch.testing.assert_close(calls[-1].run(), model(images))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet50", {}, "is no model of hybridvit in PyTorch"),
        ("fastvit_debug", {"batch": 0}, "The batch is 0"),
        ("fastvit_debug", {"rounds": 3}, "at least 8 rounds"),
        ("fastvit_debug", {"threads": 0}, "0"),
    ],
)
def test_what_cannot_be_profiled_is_refused(name: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        profile_model(name, ProfileOptions(**options))


def test_a_folded_file_is_profiled_in_inference_alone(tmp_path: Path) -> None:
    file = tmp_path / "folded.safetensors"
    hybridvit.save_checkpoint(hybridvit.create_model("fastvit_debug", folded=True), file)
    assert profiled(str(file), depth="stage").model == str(file)
    with pytest.raises(UsageError, match="its training form is gone"):
        profiled(str(file), mode="training")


def test_a_disturbed_profile_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    busy = Conditions(drift=None, noise=0.0, others=0.4, stolen=None, throttled=None)
    monkeypatch.setattr(Watch, "conditions", lambda *_, **__: busy)
    for mode in ("inference", "training"):
        found = profiled("fastvit_debug", depth="stage", mode=mode)
        assert found.to_dict()["conditions"]["warnings"] == busy.warnings()
        write_page(found, [], tmp_path / "page.html")
        assert "Other processes took 40% of the cores" in (tmp_path / "page.html").read_text(encoding="utf-8")
