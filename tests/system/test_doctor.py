"""The doctor: what it finds broken, what it warns of, and its estimate against counts by hand."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from hybridvit.cli import doctor
from hybridvit.cli.main import main
from hybridvit.machine import limits as limits_module
from hybridvit.machine import packages
from hybridvit.machine.facts import installed_version
from hybridvit.machine.limits import Limits, limits
from hybridvit.machine.packages import PackageState, required_and_optional, states_of
from hybridvit.recipe.file import load_recipe
from hybridvit.recipe.recipe import Recipe
from hybridvit.training.trial import check_devices
from hybridvit.training.trial.check_devices import DeviceState, device_states
from hybridvit.training.trial.memory_estimate import ALLOWANCE, MARGIN, estimate_memory, fitting_micro_batch, usable

ROOMY = Limits(
    cores=8,
    core_share=None,
    memory_total=2**35,
    memory_free=2**34,
    memory_limit=None,
    shared_memory=2**33,
    disk_free=2**40,
)
CPU = DeviceState(name="cpu", description="CPU", memory=None, memory_free=None, bfloat16=True)
GPU = DeviceState(name="cuda:0", description="H, 9.0", memory=80 * 2**30, memory_free=79 * 2**30, bfloat16=True)
ALL_BACKENDS = {"gloo": True, "nccl": True}


def small(changes: dict[str, object] | None = None) -> Recipe:
    settings: dict[str, object] = {"model": "fastvit_debug", "dry_run": True, "data.image_size": 64}
    return load_recipe("fastvit_t8", settings | {"data.total_batch": 32} | (changes or {}))


@pytest.fixture
def all_works(monkeypatch: pytest.MonkeyPatch) -> dict[str, PackageState]:
    """Package states without imports; a test changes them."""
    states: dict[str, PackageState] = {}

    def known(names: list[str]) -> dict[str, PackageState]:
        return {name: states.get(name, PackageState(name=name, state="works", version="1.0")) for name in names}

    monkeypatch.setattr(packages, "states_of", known)
    return states


def test_packages_are_told_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "half_installed.py").write_text("import nothing_of_that_name\n")
    (tmp_path / "ends_python.py").write_text("import os; os._exit(3)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    faked = {"half-installed": "0.1", "ends-python": "0.2"}
    monkeypatch.setattr(packages, "installed_version", lambda name: faked.get(name) or installed_version(name))
    states = states_of(["half-installed", "ends-python", "pyyaml", "no-such-package"])
    assert {name: state.state for name, state in states.items()} == {
        "half-installed": "broken",
        "ends-python": "broken",
        "pyyaml": "works",
        "no-such-package": "missing",
    }
    assert "nothing_of_that_name" in states["half-installed"].reason
    assert "ended Python" in states["ends-python"].reason


def test_extras_come_from_the_package_itself() -> None:
    required, optional = required_and_optional()
    assert {"torch", "timm", "pyyaml"} <= set(required)
    assert "onnxruntime" in optional["export"]
    assert not {"dev", "all"} & set(optional)


def test_doctor_ends_with_0_where_all_works_and_tells_what_an_extra_lacks(
    all_works: dict[str, PackageState], capsys: pytest.CaptureFixture[str]
) -> None:
    all_works["onnxruntime"] = PackageState(name="onnxruntime", state="missing")
    all_works["scikit-learn"] = PackageState(name="scikit-learn", state="broken", version="1", reason="no numpy")
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert 'onnxruntime is not installed. pip install "hybridvit[export]"' in text
    assert "scikit-learn 1 is broken: no numpy" in text
    assert "CPU, bfloat16: trains" in text
    assert text.endswith("All that is required works.\n")


def test_doctor_ends_with_2_where_something_required_is_broken(
    all_works: dict[str, PackageState], capsys: pytest.CaptureFixture[str]
) -> None:
    all_works["torch"] = PackageState(name="torch", state="broken", version="2.0", reason="no libc")
    assert main(["doctor"]) == 2
    assert "Broken: torch: 2.0 is broken: no libc" in capsys.readouterr().out


def test_a_device_that_cannot_do_a_step_is_broken(
    all_works: dict[str, PackageState], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*arguments: object, **options: object) -> Any:
        raise RuntimeError("CUDA error: no kernel image\n is available")

    monkeypatch.setattr(check_devices, "build", fails)
    assert device_states()[0].problem == "CUDA error: no kernel image is available"
    assert main(["doctor", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["broken"] == ["cpu: CUDA error: no kernel image is available"]


@pytest.mark.parametrize(
    ("changes", "devices", "said"),
    [
        ({"core_share": 2.0}, [CPU], "set OMP_NUM_THREADS=2"),
        ({"shared_memory": 64 * 2**20}, [CPU], "--shm-size 8g"),
        ({"disk_free": 2**20}, [CPU], "checkpoints may not fit"),
        ({}, [CPU], "built for CUDA 13, but finds no GPU"),
        ({}, [CPU, dataclasses.replace(GPU, bfloat16=False)], "--precision 16-mixed"),
        ({}, [CPU, GPU, dataclasses.replace(GPU, description="other")], "no NCCL"),
        ({}, [CPU, GPU, dataclasses.replace(GPU, description="other")], "the slowest sets the pace"),
    ],
)
def test_known_bad_combinations_are_warned_of(changes: dict[str, Any], devices: list[DeviceState], said: str) -> None:
    backends = {"gloo": True, "nccl": False}
    known = dataclasses.replace(ROOMY, **changes)
    assert any(said in line for line in doctor.warnings_of(known, devices, backends, built_for_cuda="13"))


def test_a_good_machine_gets_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert doctor.warnings_of(ROOMY, [CPU, GPU], ALL_BACKENDS, built_for_cuda="13") == []
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert "OMP_WAIT_POLICY" in doctor.warnings_of(ROOMY, [CPU, GPU], ALL_BACKENDS, built_for_cuda="13")[0]


def test_a_containers_limits_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, content in (("cpu.max", "150000 100000"), ("memory.max", "1000000"), ("memory.current", "400000")):
        (tmp_path / name).write_text(content + "\n")
    monkeypatch.setattr(limits_module, "CGROUP", tmp_path)
    found = limits(tmp_path / "runs" / "not" / "there")
    assert (found.core_share, found.memory_limit, found.memory_usable) == (1.5, 600_000, 600_000)
    assert found.disk_free is not None
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert (limits(tmp_path).core_share, limits(tmp_path).memory_limit) == (None, None)


def test_the_estimate_counts_what_can_be_counted_by_hand() -> None:
    import hybridvit

    model = hybridvit.create_model("fastvit_debug", num_classes=7)
    weights = 4 * sum(parameter.numel() for parameter in model.parameters())
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    estimate = estimate_memory(small(), devices=1, num_classes=7)
    assert estimate.weights == weights + 2 * buffers
    assert estimate.averaged == weights + buffers
    assert estimate.optimizer == pytest.approx(2 * weights, rel=1e-3)  # two moments
    assert (estimate.exchange, estimate.teacher) == (0, 0)
    assert estimate.total == sum(size for _, size in estimate.lines())
    momentum_alone = estimate_memory(small({"optim.name": "sgd", "ema.decay": 0}), devices=1, num_classes=7)
    assert momentum_alone.optimizer == pytest.approx(weights, rel=1e-3)
    assert momentum_alone.averaged == 0


def test_the_estimate_grows_and_shrinks_with_what_it_should() -> None:
    def step(changes: dict[str, object]) -> int:
        return estimate_memory(small(changes), devices=1, num_classes=10).step

    whole = step({})
    assert step({"data.image_size": 128}) == pytest.approx(4 * whole, rel=0.1)
    assert step({"data.micro_batch": 16}) == pytest.approx(whole / 2, rel=0.2)
    assert step({"precision": "bf16-mixed"}) < 0.8 * whole
    assert step({"grad_checkpointing": True}) < whole
    with_teacher = estimate_memory(small({"distill.teacher": "resnet18"}), devices=1, num_classes=10)
    assert with_teacher.teacher > 40e6


def test_the_estimate_shares_out_under_fsdp() -> None:
    ddp, fsdp = (
        estimate_memory(small({"strategy": strategy}), devices=4, num_classes=10) for strategy in ("ddp", "fsdp")
    )
    assert fsdp.optimizer == pytest.approx(ddp.optimizer / 4, rel=0.01)
    assert ddp.exchange > 0
    assert fsdp.exchange == 0


def test_the_largest_micro_batch_that_fits_is_found() -> None:
    recipe = small()
    of_eight = estimate_memory(small({"data.micro_batch": 8}), devices=1, num_classes=10).total
    memory = int((1.05 * of_eight + ALLOWANCE) / MARGIN)
    assert fitting_micro_batch(recipe, devices=1, num_classes=10, memory=memory) == 8
    assert fitting_micro_batch(recipe, devices=1, num_classes=10, memory=2**16) == 0


def test_doctor_says_whether_a_recipe_fits(
    all_works: dict[str, PackageState], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["doctor", "fastvit_t8", "--model=fastvit_debug", "--data.image_size=64", "--data.total_batch=32"]
    assert main([*words, "--memory", "8", "--devices", "2"]) == 0
    text = capsys.readouterr().out
    assert "Memory of fastvit_debug at 64 px, 32 images a step, 1,000 classes" in text
    assert "on each of 2 CPU processes, of 8.0 GiB\nIt fits." in text
    assert main([*words, "--memory", "0.3835", "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["micro_batch_that_fits"] < 32
    assert usable(found["available"]) < found["estimate"]["total"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--memory", "8"], "only with a recipe"),
        (["--seed", "3"], "only with a recipe"),
        (["fastvit_t9"], "no recipe 'fastvit_t9'"),
        (["fastvit_t8", "--memory", "much"], "--memory is 'much', but it must be a number above 0"),
        (["fastvit_t8", "--classes"], "--classes is '', but it must be a number above 0"),
    ],
)
def test_doctor_refuses_what_it_cannot_use(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *words]) == 2
    assert said in capsys.readouterr().err
