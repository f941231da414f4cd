"""Records, files and comparisons of benchmarks, and what is said of the conditions."""

import csv
import dataclasses
import io
import json
from pathlib import Path

import pytest
import torch
from bench_results import candidate, result, row

from hybridvit.cli.bench import table
from hybridvit.errors import UsageError
from hybridvit.loading import open_runner
from hybridvit.measure import conditions
from hybridvit.measure.against import compare
from hybridvit.measure.candidate import check_names, device_of
from hybridvit.measure.conditions import Conditions, Watch, drift
from hybridvit.measure.latency import Latency, take_turns, warm_up
from hybridvit.measure.mixers import reductions
from hybridvit.measure.options import BenchOptions
from hybridvit.measure.plan import Plan, plan_of
from hybridvit.measure.protocols import PROTOCOLS, given_of
from hybridvit.measure.result import COLUMNS, TIMM_COLUMNS, of_one_load, read_result
from hybridvit.measure.subject import FORMS, Subject, build, find_subject, of_pyramid

STEADY = tuple(10.0 + 0.01 * number for number in range(9))


def test_a_turn_of_several_calls_counts_once() -> None:
    latency = Latency(times_ms=(1.0, 2.0, 30.0, 4.0, 5.0, 6.0), calls_per_turn=3)
    assert latency.turns_ms == (2.0, 5.0)
    assert latency.median_ms == 3.5
    assert latency.p99_ms == 30.0  # of all calls


def test_every_round_is_delivered_as_it_ends() -> None:
    numbers = iter(range(100))
    seen = [len(times["a"]) for times in take_turns({"a": lambda calls: [next(numbers)] * calls}, rounds=3, calls=2)]
    assert seen == [2, 4, 6]


def test_warming_up_ends_when_two_windows_agree_and_gives_up_after_its_time() -> None:
    slowing = iter([9.0] + [8.0] * 5 + [4.0] * 5 + [3.99] * 5 + [1.0] * 100)
    assert warm_up(lambda calls: [next(slowing) for _ in range(calls)])
    assert next(slowing) == 1.0  # the first call, and three windows
    clock, doubling = iter(range(1000)), iter(2.0**power for power in range(1000))
    assert not warm_up(lambda calls: [next(doubling) for _ in range(calls)], clock=lambda: next(clock))


def test_a_record_has_all_columns_and_the_published_accuracy_with_its_source() -> None:
    record = row(STEADY).record()
    assert tuple(record) == (*COLUMNS, "turns_ms")
    assert (record["median_ms"], record["low_ms"] <= 10.04 <= record["high_ms"]) == (10.04, True)
    assert (record["top1"], record["top1_of"]) == (76.2, "plain")
    assert "README" in record["top1_source"]
    json.dumps(record)


@pytest.mark.parametrize("changes", [{"image_size": (384, 384)}, {"image_size": (256, 192)}, {"precision": "int8"}])
def test_no_accuracy_is_claimed_for_another_size_or_for_integers(changes: dict) -> None:
    assert row(STEADY, **changes).record()["top1"] is None


def test_the_csv_begins_with_timms_columns_in_timms_units() -> None:
    rows = list(csv.DictReader(io.StringIO(result(row(STEADY, batch=8)).csv())))
    assert tuple(rows[0])[: len(TIMM_COLUMNS)] == TIMM_COLUMNS
    assert {name: rows[0][name] for name in TIMM_COLUMNS} == {
        "model": "fastvit_t8",
        "infer_img_size": "256",
        "infer_samples_per_sec": "796.81",
        "infer_step_time": "10.04",
        "infer_batch_size": "8",
        "param_count": "3.99",
        "infer_gmacs": "0.69",
        "infer_macts": "8.6",
    }
    assert set(COLUMNS) <= set(rows[0])


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    whole = result(row(STEADY))
    (tmp_path / "r.json").write_text(whole.json() + "\n")
    assert read_result(tmp_path / "r.json") == json.loads(whole.json())
    assert "\n" not in whole.json()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("{", "is no result of a benchmark"),
        ('{"format": 9, "bench": []}', "its format is not 1"),
        ('{"format": 1, "bench": [{"model": "x"}]}', "a record has no family, form"),
        ("[1]", "is no result"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, content: str, text: str) -> None:
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(UsageError, match=text):
        read_result(tmp_path / "r.json")
    with pytest.raises(UsageError, match=r"There is no file .*none\.json"):
        read_result(tmp_path / "none.json")


def test_times_are_compared_within_one_size_and_batch_alone() -> None:
    faster = tuple(time / 2 for time in STEADY)
    large, small = row(STEADY, image_size=(256, 256)).record(), row(faster, image_size=(64, 64)).record()
    eight, quick = row(STEADY, batch=8, image_size=(64, 64)).record(), row(faster, "fastvit_t12").record()
    assert of_one_load([large, eight, small, quick]) == [[small], [eight], [quick, large]]
    shown = [line.split() for line in table([large, eight, small, quick]).splitlines()]
    assert [(line[0], line[3], line[4], line[-1]) for line in shown[1:]] == [
        ("fastvit_t8", "64", "1", "1.00x"),
        ("fastvit_t8", "64", "8", "1.00x"),
        ("fastvit_t12", "256", "1", "1.00x"),
        ("fastvit_t8", "256", "1", "2.00x"),
    ]


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1.2, "slower"), (1.02, "same"), (0.8, "faster"), (0.98, "same"), (1.0, "same")]
)
def test_slower_is_what_noise_and_the_tolerance_do_not_explain(factor: float, verdict: str) -> None:
    before = result(row(STEADY)).to_dict()
    after = result(row(tuple(factor * time for time in STEADY))).to_dict()
    compared = compare(after, before, tolerance=0.05)
    assert [change.verdict for change in compared.changes] == [verdict]
    assert bool(compared.slower) == (verdict == "slower")
    assert f"x{factor:.3f}  {verdict}" in compared.text()


def test_overlapping_intervals_are_the_same_whatever_the_medians() -> None:
    noisy = (8.0, 8.0, 8.0, 9.0, 12.0, 12.0, 12.0, 12.0, 12.0)
    quiet = (8.0, 8.0, 8.0, 8.0, 8.0, 9.0, 12.0, 12.0, 12.0)
    compared = compare(result(row(noisy)).to_dict(), result(row(quiet)).to_dict(), tolerance=0.05)
    assert compared.changes[0].verdict == "same"


def test_another_machine_or_version_is_said_and_nothing_in_common_is_an_error() -> None:
    before, after = result(row(STEADY)).to_dict(), result(row(STEADY), row(STEADY, "fastvit_t12")).to_dict()
    before["machine"] |= {"processor": "an abacus", "versions": {"torch": "1.0"}}
    compared = compare(after, before, tolerance=0.05)
    assert "another machine: processor was an abacus" in compared.text()
    assert "torch 1.0 -> " in compared.text()
    assert "Only there: 0; only here: 1" in compared.text()
    with pytest.raises(UsageError, match="no candidate in common"):
        compare(result(row(STEADY, batch=2)).to_dict(), before, tolerance=0.05)
    with pytest.raises(UsageError, match="tolerance is -5 %"):
        compare(after, before, tolerance=-0.05)


def test_drift_is_of_the_machine_and_not_of_one_candidate() -> None:
    steady, slowing = [5.0] * 12, [5.0] * 4 + [5.5] * 4 + [6.0] * 4
    assert drift([steady, steady, slowing], calls=1) == 0
    assert drift([slowing, slowing, steady], calls=1) == pytest.approx(0.2)
    assert drift([steady[:5]], calls=1) is None


def test_a_disturbed_measurement_is_said_to_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat, own = tmp_path / "stat", tmp_path / "7"
    own.mkdir()
    monkeypatch.setattr(conditions, "PROC", tmp_path)
    monkeypatch.setattr(conditions, "CPUS", tmp_path)
    monkeypatch.setattr("os.getpid", lambda: 7)

    def tick(user: int, idle: int, stolen: int, ours: int) -> None:
        stat.write_text(f"cpu  {user} 0 0 {idle} 0 0 0 {stolen} 0 0\ncpu0 1 1 1\n")
        (own / "stat").write_text(f"7 (a) b) S {' '.join(['0'] * 10)} {ours} 0 0")

    tick(100, 100, 0, 40)
    watch = Watch(())
    tick(160, 130, 10, 60)  # of 100 ticks 60 were used, 20 of them by us, and 10 were stolen
    seen = watch.conditions({"a": [1.0] * 9 + [2.0] * 3}, calls=1)
    assert (seen.others, seen.stolen, seen.throttled) == (0.4, 0.1, None)
    assert seen.noise == 1.0
    said = " ".join(seen.warnings())
    for text in ("Other processes took 40%", "host took 10%", "100% longer than the median", "slower than the first"):
        assert text in said


def test_a_quiet_machine_gets_no_warning() -> None:
    quiet = Conditions(drift=0.01, noise=0.1, others=0.02, stolen=0.0, throttled=0)
    assert quiet.warnings() == []
    hot = Conditions(drift=None, noise=0.1, others=None, stolen=None, throttled=3)
    assert "slowed down for their heat 3 times" in hot.warnings()[0]


def test_protocols_set_what_is_not_given_and_refuse_another_batch() -> None:
    given = given_of(BenchOptions(protocol="fastvit-gpu", rounds=20))
    assert (given["batch"], given["rounds"], given["protocol"]) == ((8,), 20, "fastvit-gpu")
    assert given_of(BenchOptions(rounds=20)) == {"rounds": 20}
    with pytest.raises(UsageError, match=r"no protocol 'fastvit'. Nearest: 'fastvit-gpu'"):
        given_of(BenchOptions(protocol="fastvit"))
    with pytest.raises(UsageError, match="fastervit-gpu has batch 128, but --batch 1"):
        given_of(BenchOptions(protocol="fastervit-gpu", batch=[1]))
    assert all("FastViT" in each.source or "FasterViT" in each.source for each in PROTOCOLS.values())


def test_a_plan_has_the_defaults_of_what_neither_the_user_nor_a_protocol_sets() -> None:
    plan = plan_of(BenchOptions(protocol="phone", runtimes=["torch", "torch"], threads=1, seconds=1.5))
    asked = frozenset({"protocol", "runtimes", "threads", "seconds", "batch", "precisions"})
    assert plan == Plan(runtimes=["torch"], threads=1, seconds=1.5, protocol="phone", batch=(1,), asked=asked)
    assert (plan.batch, plan.image_size, plan.device, plan.rounds, plan.calls) == ((1,), (None,), "cpu", 50, 3)
    with pytest.raises(UsageError, match="number of threads is 0"):
        plan_of(BenchOptions(runtimes=["torch"], threads=0))
    with pytest.raises(UsageError, match=r"number of threads is 999, but this process may use \d+ cores.* Use --thr"):
        plan_of(BenchOptions(runtimes=["torch"], threads=999))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, ""),
        ({"runtimes": ["onnxruntime", "torch"], "precisions": ["fp16", "fp32"], "batch": [4]}, ""),
        ({"runtimes": ["torch"]}, "it runs in onnxruntime, and --runtimes torch is asked for"),
        ({"precisions": ["fp32", "int8"]}, "its numbers are fp16, and --precisions fp32 int8 is asked for"),
        ({"forms": ["training"]}, "it is folded, and --forms training is asked for"),
        ({"batch": [1]}, "it takes a batch of 4, and --batch 1 is asked for"),
        ({"image_size": [(64, 32)]}, "it takes 32x32 or 64x64 px, and --image_size 64x32 is asked for"),
        ({"image_size": [(64, 64)]}, ""),
        ({"device": "cuda"}, "onnxruntime computes on cpu, and --device cuda is asked for"),
        ({"protocol": "phone"}, "its numbers are fp16, and --precisions fp32 is asked for"),
    ],
)
def test_what_an_exported_file_cannot_follow_leaves_it_out_with_the_reason(
    options: dict, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Subject(
        name="m.onnx", kind="exported", family="", image_size=(32, 32), source="m.onnx", runtimes=("onnxruntime",),
        precision="fp16", batch=4, sizes=((32, 32), (64, 64)), is_folded=True,
    )  # fmt: skip
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    plan = plan_of(BenchOptions(**options))
    ((candidate,),) = plan.groups([file])
    assert (candidate.runtime, candidate.precision, candidate.file) == ("onnxruntime", "fp16", "m.onnx")
    assert plan.why_not(candidate) == reason


def test_a_file_of_any_side_within_a_range_takes_those() -> None:
    file = Subject(
        name="m.onnx", kind="exported", family="", image_size=(64, 64), source="m.onnx", runtimes=("onnxruntime",),
        range_px=(32, 128),
    )  # fmt: skip
    plan = plan_of(BenchOptions(image_size=[(32, 128), (32, 129)]))
    reasons = [plan.why_not(each) for group in plan.groups([file]) for each in group]
    assert reasons == ["", "it takes sides from 32 to 128 px, and --image_size 32x129 is asked for"]


def test_a_device_is_that_of_the_runtime_and_not_of_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert plan_of(BenchOptions(device="cuda")).runtimes == ["torch"]
    plan = plan_of(BenchOptions(device="cuda", runtimes=["torch", "onnxruntime"]))
    (found,) = plan.groups([candidate().subject])
    assert [(each.device, plan.why_not(each)) for each in found] == [
        ("cuda", ""),
        ("cpu", "onnxruntime computes on cpu, and --device cuda is asked for"),
    ]
    assert device_of("tensorrt", "cpu") == "cuda"


@pytest.mark.parametrize("file", ["m.mlpackage", "m.aimodel", "m.engine"])
def test_a_runtime_that_counts_its_own_threads_is_told_none(file: str) -> None:
    with pytest.raises(UsageError, match=r"threads is 1, but .* counts its own. Leave --threads out"):
        open_runner(file, threads=1)


def test_a_form_that_there_is_not_is_said() -> None:
    subject = candidate().subject
    plan = plan_of(BenchOptions(runtimes=["onnxruntime"], forms=["training"]))
    ((found,),) = plan.groups([subject])
    assert plan.why_not(found) == "the training form is for PyTorch alone"
    plan = plan_of(BenchOptions(runtimes=["torch", "onnxruntime"], forms=["training", "folded"]))
    (group,) = plan.groups([dataclasses.replace(subject, kind="weights", is_folded=True)])
    assert [(each.runtime, each.form, plan.why_not(each)) for each in group] == [
        ("torch", "training", "it is folded, and its training form is gone"),
        ("torch", "folded", ""),
        ("onnxruntime", "folded", ""),
    ]


def test_every_combination_that_there_is_of_a_model() -> None:
    subject = candidate().subject
    plan = Plan(runtimes=("torch", "onnxruntime"), precisions=("fp32", "bf16"), forms=FORMS, threads=1)
    (found,) = plan.groups([subject])
    assert [(each.runtime, each.form, each.precision, each.why_not()) for each in found] == [
        ("torch", "training", "fp32", ""),
        ("torch", "training", "bf16", ""),
        ("torch", "folded", "fp32", ""),
        ("torch", "folded", "bf16", ""),
        ("onnxruntime", "folded", "fp32", ""),
        ("onnxruntime", "folded", "bf16", "onnxruntime has no bf16: it has fp32, fp16, int8"),
    ]
    assert "PyTorch has no int8" in candidate(runtime="torch", precision="int8").why_not()
    assert "use bf16" in candidate(runtime="torch", precision="fp16").why_not()
    assert "a" not in check_names("letter", ["b", "b"], ["a", "b"])


def test_the_reduction_by_repmixer_stands_beside_the_papers() -> None:
    pooling, mixer = (
        row(STEADY, "pooling", image_size=(384, 384)),
        row(tuple(0.75 * time for time in STEADY), "RepMixer", image_size=(384, 384)),
    )
    (found,) = reductions(result(pooling, mixer).records())
    assert found["less_percent"] == pytest.approx(25.0)
    assert found["least_percent"] < 25 < found["most_percent"]
    assert (found["side_px"], found["paper_percent"]) == (384, 25.1)


@pytest.mark.parametrize("name", ["fastvit_debug", "fastervit_debug", "resnet10t"])
def test_pyramids_are_backbones_without_their_heads(name: str) -> None:
    for form in FORMS:
        maps = build(of_pyramid(find_subject(name)), form, (64, 96))(torch.zeros(2, 3, 64, 96))
        assert [tuple(each.shape[-2:]) for each in maps] == [(64 // stride, 96 // stride) for stride in (4, 8, 16, 32)]
    options = given_of(BenchOptions(protocol="fastvit-dense"))
    assert (options["returns"], options["batch"], options["image_size"]) == ("pyramid", (2,), ((512, 512),))
    file = Subject(name="m.onnx", kind="exported", family="", image_size=(32, 32), source="m.onnx")
    with pytest.raises(UsageError, match=r"m.onnx gives no feature maps. Export it again with --returns pyramid"):
        of_pyramid(file)
