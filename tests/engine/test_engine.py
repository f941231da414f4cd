"""The parts of the training engine that can be judged without a run."""

import copy
import dataclasses
import math

import pytest
import torch
from conftest import contract_model
from timm.utils import ModelEmaV3
from torch import nn

from hybridvit.errors import UsageError
from hybridvit.machine.memory import is_out_of_memory
from hybridvit.recipe.groups import EmaConfig
from hybridvit.tasks.classify.config import ClassifyData, ClassifyRecipe
from hybridvit.training.auto_batch import largest_fitting
from hybridvit.training.engine import devices
from hybridvit.training.engine.average import WeightAverage
from hybridvit.training.engine.devices import build_fabric, check_abilities
from hybridvit.training.engine.launch import is_communication, is_timeout
from hybridvit.training.engine.launched import Launched, check_launched, launched
from hybridvit.training.engine.memory import micro_batch_sizes, out_of_memory, with_micro_batch

RECIPE = ClassifyRecipe(model="fastvit_debug", data=ClassifyData(source="generated", image_size=32, total_batch=96))


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 16, 40, 96, 1000])
def test_the_largest_size_that_fits_is_found(limit: int) -> None:
    sizes, tried = [2, 4, 6, 8, 12, 16, 24, 32, 48, 96], []

    def fits(size: int) -> bool:
        tried.append(size)
        return size <= limit

    assert largest_fitting(sizes, fits) == max((size for size in sizes if size <= limit), default=None)
    assert len(tried) <= 1 + math.ceil(math.log2(len(sizes)))
    assert tried[0] == 96


def test_sizes_share_a_step_out_evenly_and_in_pairs_for_mixing() -> None:
    assert micro_batch_sizes(RECIPE, 2) == [2, 4, 6, 8, 12, 16, 24, 48]
    unmixed = dataclasses.replace(RECIPE, augment=dataclasses.replace(RECIPE.augment, mixup=0.0, cutmix=0.0))
    assert micro_batch_sizes(unmixed, 2) == [2, 3, 4, 6, 8, 12, 16, 24, 48]


def test_out_of_memory_names_the_next_legal_size_and_then_other_ways() -> None:
    whole = "A micro-batch of 48 images at 32 px needs .* Use --data.micro_batch 24: the step still sees 96 images"
    assert_matches(whole, out_of_memory(RECIPE, 2))
    assert_matches("--data.micro_batch 6:", out_of_memory(with_micro_batch(RECIPE, 12), 2))
    assert_matches("cannot be smaller. Use --grad_checkpointing true", out_of_memory(with_micro_batch(RECIPE, 2), 2))


def assert_matches(pattern: str, error: Exception) -> None:
    with pytest.raises(type(error), match=pattern):
        raise error


def test_what_counts_as_out_of_memory() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"))
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 17.9 GB, max allowed: 18.1 GB)"))
    with pytest.raises(RuntimeError) as caught:  # as this torch says it
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


def test_what_counts_as_another_process_that_does_not_answer() -> None:
    gloo = "[/pytorch/third_party/gloo/gloo/transport/tcp/{}] {}"
    closed = RuntimeError(gloo.format("pair.cc:538", "Connection closed by peer [127.0.0.1]:2029"))
    late = RuntimeError(gloo.format("unbound_buffer.cc:81", "Timed out waiting 10000ms for recv operation to complete"))
    assert is_communication(closed)
    assert is_communication(late)
    assert is_communication(torch.distributed.DistBackendError("NCCL communicator was aborted on rank 1."))
    assert is_communication(torch.distributed.DistNetworkError("Connection reset by peer"))
    assert not is_communication(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_communication(RuntimeError("shape mismatch"))
    assert (is_timeout(closed), is_timeout(late)) == (False, True)


TORCHRUN = {"WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8"}
SLURM = {"SLURM_NTASKS": "16", "SLURM_NNODES": "4", "SLURM_JOB_NAME": "train"}


def test_launchers_say_how_many_processes_there_are() -> None:
    assert launched({}) is None
    assert launched(TORCHRUN) == Launched(by="torchrun", devices=8, num_nodes=2)
    assert launched(SLURM) == Launched(by="SLURM", devices=4, num_nodes=4)
    assert launched(SLURM | TORCHRUN) == Launched(by="torchrun", devices=8, num_nodes=2)  # torchrun within SLURM
    assert launched(SLURM | {"SLURM_JOB_NAME": "interactive"}) is None
    with pytest.raises(UsageError, match=r"17 processes, 8 of them on this machine.* Start the same number on each"):
        launched(TORCHRUN | {"WORLD_SIZE": "17"})


def test_a_recipe_that_contradicts_its_launcher_is_refused() -> None:
    by_launcher = launched(TORCHRUN)
    check_launched(dataclasses.replace(RECIPE, devices=8, num_nodes=2), by_launcher)
    check_launched(RECIPE, by_launcher)
    with pytest.raises(UsageError, match=r"'devices' is 4, but torchrun has started 8 .*--nproc-per-node=4"):
        check_launched(dataclasses.replace(RECIPE, devices=4), by_launcher)
    with pytest.raises(UsageError, match="'num_nodes' is 3, but torchrun has started processes on 2 machines"):
        check_launched(dataclasses.replace(RECIPE, num_nodes=3), by_launcher)


def test_fabric_has_the_launchers_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"RANK": "9", "LOCAL_RANK": "1", "GROUP_RANK": "1", "MASTER_ADDR": "host", "MASTER_PORT": "1"}
    for name, value in (TORCHRUN | variables | {"TORCHELASTIC_RUN_ID": "1"}).items():
        monkeypatch.setenv(name, value)
    fabric = build_fabric(dataclasses.replace(RECIPE, accelerator="cpu"))
    assert (fabric.world_size, fabric.global_rank, fabric.local_rank, fabric.node_rank) == (16, 9, 1, 1)


def test_what_a_device_cannot_do_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    half = dataclasses.replace(RECIPE, precision="16-mixed")
    with pytest.raises(UsageError, match=r"'16-mixed', but .* A CPU trains in 32-true or bf16-mixed"):
        check_abilities(half, "cpu")
    check_abilities(half, "cuda")
    check_abilities(dataclasses.replace(RECIPE, precision="bf16-mixed"), "cpu")
    with pytest.raises(UsageError, match="on CUDA GPUs only, and this run is on cpu"):
        check_abilities(dataclasses.replace(RECIPE, sync_batchnorm=True), "cpu")
    with pytest.raises(UsageError, match=r"'compile' is true, but torch.compile is for cuda and cpu"):
        check_abilities(dataclasses.replace(RECIPE, compile=True), "mps")
    monkeypatch.setattr(devices, "_has_bfloat16", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Old GPU")
    with pytest.raises(UsageError, match=r"Old GPU does not compute in bfloat16. It trains in 32-true or 16-mixed"):
        check_abilities(dataclasses.replace(RECIPE, precision="bf16-mixed"), "cuda")


@pytest.mark.parametrize("warmup", [True, False])
def test_the_average_of_weights_is_timms_to_the_last_bit(warmup: bool) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    ours = WeightAverage(model, EmaConfig(decay=0.9, warmup=warmup))
    theirs = ModelEmaV3(model, decay=0.9, use_warmup=warmup)
    ours.follow(model)
    for step in range(1, 6):
        model(torch.randn(8, 3))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        ours.update(step=step)
        theirs.update(model, step=step)
    for name, value in theirs.module.state_dict().items():
        assert torch.equal(ours.module.state_dict()[name], value), name


@pytest.mark.parametrize("name", ["fastvit_debug", "fastervit_debug"])
def test_checkpointing_changes_neither_gradients_nor_statistics(name: str) -> None:
    plain = contract_model(name, num_classes=10, drop_path_rate=0.3).train()
    saving = copy.deepcopy(plain)
    saving.set_grad_checkpointing()
    images = torch.randn(4, 3, 64, 64)
    for model in (plain, saving):
        torch.manual_seed(1)
        model(images).square().sum().backward()
    for (key, expected), (_, actual) in zip(plain.named_parameters(), saving.named_parameters(), strict=True):
        assert torch.equal(expected.grad, actual.grad), key
    for key, expected in plain.state_dict().items():
        assert torch.equal(expected, saving.state_dict()[key]), key


def test_synchronised_norms_are_trained_branch_by_branch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.SyncBatchNorm.convert_sync_batchnorm(contract_model("fastvit_debug", num_classes=10)).train()
    norms = [module for module in model.modules() if isinstance(module, nn.SyncBatchNorm)]
    calls: list[nn.Module] = []

    def forward(self: nn.SyncBatchNorm, x: torch.Tensor) -> torch.Tensor:
        calls.append(self)  # stands for the exchange between GPUs, which a CPU has not
        return nn.functional.batch_norm(x, None, None, self.weight, self.bias, True)

    monkeypatch.setattr(nn.SyncBatchNorm, "forward", forward)
    model(torch.randn(2, 3, 64, 64)).sum().backward()
    assert {id(norm) for norm in calls} == {id(norm) for norm in norms}
    assert all(norm.weight.grad is not None for norm in norms)
