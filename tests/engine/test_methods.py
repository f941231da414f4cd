"""Whole runs with the training methods: resumed to the bit, on half precision, and fine-tuned with other windows."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import TINY, Interruption, TinyTask, assert_same_bits
from torch import Tensor, nn

import hybridvit
from hybridvit.batch import Batch
from hybridvit.errors import CheckpointError, UsageError
from hybridvit.recipe.groups import OptimConfig, ScheduleConfig
from hybridvit.task import Moment, Objective, Splits
from hybridvit.tasks.classify.config import ClassifyRecipe, DistillConfig, MesaConfig
from hybridvit.tasks.classify.distillation import mesa_is_on
from hybridvit.training.run.snapshot import newest_snapshot, read_snapshot
from hybridvit.training.train import train


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    model = hybridvit.create_model("fastervit_debug", num_classes=10).eval()
    hybridvit.save_checkpoint(model, path)
    return path


@pytest.fixture
def everything(teacher: Path) -> ClassifyRecipe:
    """All methods at once; MESA from the third of the six steps."""
    return dataclasses.replace(
        TINY,
        distill=DistillConfig(teacher=str(teacher), kind="soft", temperature=2.0),
        mesa=MesaConfig(weight=1.0, start=0.3),
        optim=OptimConfig(name="lamb", layer_decay=0.7, clip_norm=5.0),
    )


def trained(recipe: ClassifyRecipe, folder: Path, **options: Any) -> dict[str, Any]:
    """Train, and give back all that was saved at the end."""
    options = {"task": TinyTask(), "progress": False} | options
    result = train(dataclasses.replace(recipe, output=str(folder)), **options)
    newest = newest_snapshot(result.folder / "checkpoints")
    assert newest is not None
    return read_snapshot(newest)


@pytest.mark.parametrize("losses_before", [pytest.param(4, marks=pytest.mark.nightly, id="before MESA begins"), 7])
def test_a_run_with_all_methods_resumes_to_the_bit(
    everything: ClassifyRecipe, tmp_path: Path, losses_before: int
) -> None:
    straight = trained(everything, tmp_path / "straight")

    def stop(what: str, count: int) -> None:
        if (what, count) == ("loss", losses_before):
            raise Interruption

    with pytest.raises(Interruption):
        trained(everything, tmp_path / "run", task=TinyTask(stop))
    assert_same_bits(trained(everything, tmp_path / "run", resume=True), straight)


def test_every_method_changes_the_weights_and_the_teacher_stays_out_of_the_checkpoint(
    everything: ClassifyRecipe, tmp_path: Path
) -> None:
    everything = dataclasses.replace(everything, schedule=ScheduleConfig(epochs=1, warmup_epochs=0))
    straight = trained(everything, tmp_path / "all")
    own = hybridvit.create_model("fastvit_debug", num_classes=10).state_dict().keys()
    assert straight["model"].keys() == straight["ema"].keys() == own
    assert "teacher" in straight["identity"]
    for name, without in {
        "teacher": dataclasses.replace(everything, distill=DistillConfig()),
        "mesa": dataclasses.replace(everything, mesa=MesaConfig()),
        "layer decay": dataclasses.replace(everything, optim=OptimConfig(name="lamb", clip_norm=5.0)),
    }.items():
        other = trained(without, tmp_path / name)
        assert any(not torch.equal(value, other["model"][key]) for key, value in straight["model"].items()), name


def test_a_run_is_not_resumed_with_another_teacher(everything: ClassifyRecipe, teacher: Path, tmp_path: Path) -> None:
    everything = dataclasses.replace(everything, schedule=ScheduleConfig(epochs=1, warmup_epochs=0))
    trained(everything, tmp_path / "run")
    original = teacher.read_bytes()
    hybridvit.save_checkpoint(hybridvit.create_model("fastervit_debug", num_classes=10), teacher)
    try:
        with pytest.raises(CheckpointError, match="trained with other teacher"):
            trained(everything, tmp_path / "run", resume=True)
    finally:
        teacher.write_bytes(original)


class Watching(TinyTask):
    """Notes the dtype of each loss, and whether the average runs in each step."""

    mesa: MesaConfig

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[Tensor] = []
        self.averages: list[bool] = []

    def open(self, recipe: ClassifyRecipe) -> Splits:
        self.mesa = recipe.mesa
        return super().open(recipe)

    def loss(self, learn: Objective, model: nn.Module, batch: Batch, moment: Moment) -> Tensor:
        self.losses.append(super().loss(learn, model, batch, moment))
        self.averages.append(mesa_is_on(self.mesa, moment))
        return self.losses[-1]


def test_losses_are_float32_in_mixed_precision_with_checkpointed_gradients(
    everything: ClassifyRecipe, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(everything, precision="bf16-mixed", grad_checkpointing=True)
    task = Watching()
    state = trained(recipe, tmp_path / "run", task=task)
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in task.losses)
    assert task.averages == 4 * [False] + 8 * [True]  # two micro-batches a step
    assert all(value.dtype == torch.float32 for value in state["model"].values() if value.is_floating_point())


FINE_TUNED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "fastervit_debug": ({"windows": (3, 3, 3, 2)}, {"windows": (3, 3, 4, 3)}),
    "swin_debug_hat": ({"relative_bias": "mlp", "window_size": 2}, {"relative_bias": "mlp", "window_size": 3}),
}


@pytest.mark.parametrize(
    "model", [pytest.param(name, marks=pytest.mark.nightly if "swin" in name else ()) for name in FINE_TUNED]
)
def test_a_model_is_fine_tuned_on_larger_images_with_other_windows(tmp_path: Path, model: str) -> None:
    windows_before, windows_after = FINE_TUNED[model]
    first = dataclasses.replace(
        TINY,
        model=model,
        model_options=windows_before,
        data=dataclasses.replace(TINY.data, image_size=64),
        schedule=ScheduleConfig(epochs=1, warmup_epochs=0),
        output=str(tmp_path / "64px"),
    )
    weights = train(first, progress=False, task=TinyTask()).model
    second = dataclasses.replace(
        first,
        model_options=windows_after,
        pretrained=str(weights),
        data=dataclasses.replace(TINY.data, image_size=96),
        schedule=ScheduleConfig(epochs=1, warmup_epochs=0, kind="constant"),
        optim=OptimConfig(lr=1e-4, layer_decay=0.8),
        output=str(tmp_path / "96px"),
    )
    tuned = hybridvit.load(train(second, progress=False, task=TinyTask()).model)
    assert isinstance(tuned, nn.Module)
    before = hybridvit.load(weights)
    assert isinstance(before, nn.Module)
    assert tuned.card.options.items() >= windows_after.items()
    assert tuned.card.preprocessing.image_size == (96, 96)
    assert tuned.card.class_names == tuple("0123456789")
    change = {name: (value - before.state_dict()[name]).abs().max() for name, value in tuned.named_parameters()}
    assert 0 < max(change.values()) < 1e-2  # it went on from these weights, in small steps
    folded = hybridvit.fold(tuned)
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(folded(images), tuned(images), rtol=1e-4, atol=1e-4)
    with pytest.raises(UsageError, match=r"has 10 classes, the images have 4 .*--reset_head"):
        train(dataclasses.replace(second, output=str(tmp_path / "four")), progress=False, task=FourClasses())
    reset = dataclasses.replace(second, reset_head=True, output=str(tmp_path / "four"))
    four = hybridvit.load(train(reset, progress=False, task=FourClasses()).model)
    assert four.card.class_names == tuple("0123")


class FourClasses(TinyTask):
    """Images of four classes."""

    num_classes = 4
