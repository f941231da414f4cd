"""What the training methods compute: distillation, of teachers that are had and shown what they know, MESA, mixing."""

import dataclasses
import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from conftest import trained_like
from timm.utils import ModelEmaV3
from tiny_runs import DIGITS, PLAIN
from torch import Tensor, nn

import hybridvit
from hybridvit.batch import Batch
from hybridvit.card import IMAGENET_MEAN, IMAGENET_STD, ModelCard, Preprocessing
from hybridvit.data.seeding import seed_everything
from hybridvit.errors import CheckpointError, UsageError
from hybridvit.task import Moment, Objective, Place
from hybridvit.tasks.classify.config import ClassifyRecipe, DistillConfig, MesaConfig
from hybridvit.tasks.classify.distillation import distilled, divergence, mesa_is_on, mesa_term
from hybridvit.tasks.classify.task import Classify
from hybridvit.tasks.classify.teacher import Teacher, TeacherModel, find_teacher, untrained_teacher
from hybridvit.training.engine.optimizer import build_optimizer
from hybridvit.training.start import material_of

STUDENT = torch.tensor([[0.0, math.log(3)], [math.log(4), 0.0]], dtype=torch.float64)  # 1/4 3/4; 4/5 1/5
TARGET = torch.tensor([[math.log(2), 0.0], [math.log(9), 0.0]], dtype=torch.float64)  # 2/3 1/3; 9/10 1/10


HERE = Place(
    device=torch.device("cpu"),
    layout=torch.contiguous_format,
    micro_batch=PLAIN.data.total_batch,
    autocast=nullcontext,
)


def teacher_of(found: TeacherModel, side: int = 32, class_names: tuple[str, ...] = DIGITS) -> Teacher:
    card = ModelCard(
        architecture="fastvit_debug", class_names=class_names, preprocessing=Preprocessing(image_size=(side, side))
    )
    return Teacher(found, card=card, place=HERE)


def learner(recipe: ClassifyRecipe) -> tuple[nn.Module, Objective]:
    """The model that the recipe starts with, in training mode, and what it minimises."""
    task = Classify()
    material = material_of(recipe, task)
    return material.model.train(), task.objective(recipe, material.card, HERE)


def batch_of(images: Tensor, labels: Tensor) -> Batch:
    """A copy of the images, which a loss may change, with their labels."""
    return Batch(images.clone(), labels, torch.arange(len(images)))


def test_hard_distillation_is_half_the_labels_and_half_the_teachers_answer() -> None:
    base = torch.tensor(2.0, dtype=torch.float64)
    loss = distilled(base, STUDENT, TARGET, DistillConfig(teacher="x", weight=0.25))
    answers = -(math.log(1 / 4) + math.log(4 / 5)) / 2  # the teacher says class 0 twice
    torch.testing.assert_close(loss.item(), 0.75 * 2.0 + 0.25 * answers, rtol=1e-12, atol=0)


def test_soft_distillation_is_the_divergence_times_the_squared_temperature() -> None:
    config = DistillConfig(teacher="x", kind="soft", weight=0.4, temperature=2.0)
    loss = distilled(torch.tensor(1.5, dtype=torch.float64), STUDENT, TARGET, config)
    expected = 0.0
    for student, target in (((1, 3), (2, 1)), ((4, 1), (9, 1))):  # odds; temperature 2 takes their roots
        p = [math.sqrt(odds) / sum(map(math.sqrt, target)) for odds in target]
        q = [math.sqrt(odds) / sum(map(math.sqrt, student)) for odds in student]
        expected += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / 2
    torch.testing.assert_close(loss.item(), 0.6 * 1.5 + 0.4 * 4 * expected, rtol=1e-12, atol=0)


def test_mesa_is_the_divergence_at_its_temperature_not_times_its_square() -> None:
    config = MesaConfig(weight=2.0, temperature=1.0)
    expected = (2 / 3 * math.log(8 / 3) + 1 / 3 * math.log(4 / 9) + 0.9 * math.log(9 / 8) + 0.1 * math.log(1 / 2)) / 2
    torch.testing.assert_close(mesa_term(STUDENT, TARGET, config).item(), 2 * expected, rtol=1e-12, atol=0)
    at_three = mesa_term(3 * STUDENT, 3 * TARGET, MesaConfig(weight=2.0)).item()
    torch.testing.assert_close(at_three, 2 * expected, rtol=1e-12, atol=0)


def test_a_divergence_is_zero_at_its_target_and_its_gradient_stays_with_the_student() -> None:
    student, target = STUDENT.clone().requires_grad_(), TARGET.clone().requires_grad_()
    assert divergence(target, target, 3.0).item() == 0
    divergence(student, target, 3.0).backward()
    distilled(student.sum(), student, target, DistillConfig(teacher="x")).backward()
    assert student.grad is not None
    assert target.grad is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_losses_of_half_precision_logits_are_computed_in_float32(dtype: torch.dtype) -> None:
    student, target = (20 * STUDENT).to(dtype), (20 * TARGET).to(dtype)
    for loss in (
        divergence(student, target, 1.0),
        distilled(torch.tensor(1.0), student, target, DistillConfig(teacher="x")),
    ):
        assert loss.dtype == torch.float32
        assert loss.isfinite()
    assert divergence(student, target, 1.0) == divergence(student.float(), target.float(), 1.0)


@pytest.mark.parametrize(("step", "is_on"), [(0, False), (24, False), (25, True), (99, True)])
def test_mesa_begins_after_its_share_of_the_steps(step: int, is_on: bool) -> None:
    moment = Moment(step=step, total_steps=100, averaged=None)
    assert mesa_is_on(MesaConfig(weight=1.0, start=0.25), moment) is is_on
    assert not mesa_is_on(MesaConfig(weight=0.0, start=0.0), moment)


class Recorder(nn.Module):
    """Answers with the mean of each channel, spread over ten classes; keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(3, 10)
        self.norm = nn.BatchNorm2d(3)
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        return self.out(self.norm(images).mean((2, 3)))


def test_a_teacher_sees_the_students_pixels_as_it_was_trained_to_see_them() -> None:
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.5, 1.0)
    module = Recorder()
    found = TeacherModel(name="t", module=module, num_classes=10, mean=mean, std=std)
    teacher = teacher_of(found)
    pixels = torch.rand(2, 3, 32, 32)
    column = lambda values: torch.tensor(values)[:, None, None]  # noqa: E731
    teacher.logits((pixels - column(IMAGENET_MEAN)) / column(IMAGENET_STD))
    torch.testing.assert_close(module.seen[-1], (pixels - column(mean)) / column(std))
    alike = Recorder()
    same = teacher_of(dataclasses.replace(found, module=alike, mean=IMAGENET_MEAN, std=IMAGENET_STD))
    same.logits(pixels)
    assert alike.seen[-1] is pixels  # not a bit is changed where nothing differs


def test_a_teacher_is_frozen_and_leaves_no_trace_on_the_generators_or_its_own_statistics() -> None:
    module = Recorder().train()
    teacher = teacher_of(TeacherModel(name="t", module=module, num_classes=10))
    before, state = {name: value.clone() for name, value in module.state_dict().items()}, torch.get_rng_state()
    logits = teacher.logits(torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1)).requires_grad_())
    assert not logits.requires_grad
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert not module.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_checkpoint_of_this_package_teaches_folded_with_its_own_classes(tmp_path: Path) -> None:
    model = trained_like(hybridvit.create_model("fastvit_debug", num_classes=10))
    model.card = dataclasses.replace(model.card, class_names=DIGITS)
    hybridvit.save_checkpoint(model, tmp_path / "teacher.safetensors")
    found = find_teacher(DistillConfig(teacher=str(tmp_path / "teacher.safetensors")), 10)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(teacher_of(found).logits(images), model(images), rtol=1e-4, atol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in found.module.modules())
    named = DistillConfig(teacher="fastvit_debug", teacher_weights=str(tmp_path / "teacher.safetensors"))
    assert teacher_of(find_teacher(named, 10)).fingerprint == teacher_of(found).fingerprint
    with pytest.raises(
        UsageError, match="other classes than the images: the same in another order, first at 0, '0' th"
    ):
        teacher_of(found, class_names=DIGITS[::-1])
    with pytest.raises(UsageError, match="new: cat; absent: 9"):
        teacher_of(found, class_names=(*DIGITS[:9], "cat"))
    with pytest.raises(UsageError, match=r"teacher.safetensors has 10 classes, but the images have 12"):
        teacher_of(found, class_names=(*DIGITS, "cat", "dog"))


def test_a_timm_teacher_takes_its_weights_from_a_file_and_says_what_does_not_fit(tmp_path: Path) -> None:
    theirs = timm.create_model("test_vit", num_classes=10).eval()
    path = tmp_path / "weights.pth"
    torch.save(theirs.state_dict(), path)
    found = find_teacher(DistillConfig(teacher="test_vit", teacher_weights=str(path)), 10)
    images = torch.randn(2, 3, 160, 160)
    half = (
        (images * torch.tensor(IMAGENET_STD)[:, None, None]) + torch.tensor(IMAGENET_MEAN)[:, None, None] - 0.5
    ) / 0.5
    torch.testing.assert_close(teacher_of(found, 160).logits(images), theirs(half), rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError, match="has 10 classes, but the images have 12"):
        find_teacher(DistillConfig(teacher="test_vit", teacher_weights=str(path)), 12)
    with pytest.raises(CheckpointError, match=r"does not fit the teacher test_resnet: .*Missing key"):
        find_teacher(DistillConfig(teacher="test_resnet", teacher_weights=str(path)), 10)


def test_a_teacher_that_cannot_take_the_images_is_refused_with_the_size_it_can() -> None:
    module = timm.create_model("vit_tiny_patch16_224", num_classes=10, depth=1)
    found = TeacherModel(name="the_vit", module=module, num_classes=10, image_size=(224, 224))
    with pytest.raises(
        UsageError, match=r"the_vit does not take images of 32x32.*trained on 224x224\. Set data.image_s"
    ):
        teacher_of(found)
    features = TeacherModel(name="headless", module=nn.AvgPool2d(32), num_classes=10)
    with pytest.raises(UsageError, match=r"answers two images with shape \(2, 3, 1, 1\), not \(2, 10\)"):
        teacher_of(features)


@pytest.mark.parametrize(
    ("config", "num_classes", "error", "text"),
    [
        (DistillConfig(teacher="regnety_16"), 10, UsageError, "no model of timm or of this package.*'regnety_160'"),
        (DistillConfig(teacher="test_vit.mine"), 1000, UsageError, "no weights 'mine' of it. Published: test_vit.r160"),
        (DistillConfig(teacher="test_vit"), 10, UsageError, "test_vit has 1000 classes, but the images have 10"),
        (DistillConfig(teacher="test_vit"), 1000, CheckpointError, "cannot be had.*--distill.teacher_weights FILE"),
        (DistillConfig(teacher="fastvit_debug"), 10, UsageError, "no published weights of fastvit_debug"),
        (DistillConfig(teacher="runs/none.safetensors"), 10, CheckpointError, "does not exist"),
    ],
)
def test_a_teacher_that_cannot_be_had_is_an_error_with_a_way_out(
    config: DistillConfig, num_classes: int, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        find_teacher(config, num_classes)


def test_a_pickle_that_could_run_code_is_no_teacher(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    path.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "harm").encode() + b"'\ntR.")
    for find in (find_teacher, untrained_teacher):
        with pytest.raises(CheckpointError):
            find(DistillConfig(teacher="test_vit", teacher_weights=str(path)), 10)
    assert not (tmp_path / "harm").exists()


def test_dry_runs_find_out_that_a_teacher_does_not_exist_without_its_weights() -> None:
    assert untrained_teacher(DistillConfig(teacher="regnety_160.deit_in1k"), 10).num_classes == 10
    with pytest.raises(UsageError, match="Nearest"):
        untrained_teacher(DistillConfig(teacher="regnety_16"), 10)
    with pytest.raises(CheckpointError, match="does not exist"):
        untrained_teacher(DistillConfig(teacher="nowhere/teacher.safetensors"), 10)


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"teacher_weights": "x.pth"}, "no teacher"),
        ({"teacher": "x", "weight": 0.0}, "would teach nothing"),
        ({"teacher": "x", "temperature": 2.0}, "at any temperature"),
    ],
)
def test_distillation_keys_without_effect_are_refused(keys: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        DistillConfig(**keys)


def test_mesa_learns_from_the_average_of_each_step_and_disturbs_nothing() -> None:
    """The average's weights change in place between steps: kernels that it folded before must not be used again."""
    recipe = dataclasses.replace(PLAIN, mesa=MesaConfig(weight=1.0, start=0.5))
    model, learn = learner(recipe)
    ema = ModelEmaV3(model, decay=0.5)
    optimizer = build_optimizer(recipe, model)
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8)
    for step in range(4):
        moment = Moment(step=step, total_steps=4, averaged=ema.module)
        buffers = {name: value.clone() for name, value in ema.module.state_dict().items()}
        seed_everything("step", step)
        loss = learn.loss(model, batch_of(images, labels), moment)
        after = torch.get_rng_state()
        seed_everything("step", step)
        shown: list[Tensor] = []
        with model.register_forward_pre_hook(lambda _, arguments, shown=shown: shown.append(arguments[0])):
            without = learn.loss(model, batch_of(images, labels), dataclasses.replace(moment, averaged=None))
        assert torch.equal(after, torch.get_rng_state())
        assert all(torch.equal(value, buffers[name]) for name, value in ema.module.state_dict().items())
        assert not ema.module.training
        if step < 2:
            assert torch.equal(loss, without)
        else:
            fresh = hybridvit.create_model("fastvit_debug", num_classes=10).eval()  # remembers nothing
            fresh.load_state_dict(ema.module.state_dict())
            (mixed,) = shown
            with torch.no_grad():
                expected = divergence(model(mixed), fresh(mixed), 3.0)
            torch.testing.assert_close(loss - without, expected, rtol=1e-3, atol=2e-6)
        loss.backward()
        assert all(parameter.grad is None for parameter in ema.module.parameters())
        optimizer.step()
        optimizer.zero_grad()
        ema.update(model)


def test_the_average_is_not_run_before_mesa_begins() -> None:
    model, learn = learner(dataclasses.replace(PLAIN, mesa=MesaConfig(weight=1.0, start=0.5)))
    forbidden = nn.Module()  # its forward raises
    batch = batch_of(torch.randn(8, 3, 32, 32), torch.arange(8))
    learn.loss(model, batch, Moment(step=1, total_steps=4, averaged=forbidden))
    with pytest.raises(NotImplementedError):
        learn.loss(model, batch, Moment(step=2, total_steps=4, averaged=forbidden))


def test_mixing_is_a_function_of_seed_step_micro_batch_and_rank() -> None:
    _, learn = learner(PLAIN)
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8)

    def mixed(*place: int) -> Tensor:
        student = Recorder()
        seed_everything("step", *place)
        learn.loss(student, batch_of(images, labels), Moment(step=0, total_steps=1, averaged=None))
        return student.seen[0]

    place = (0, 5, 1, 0)
    assert torch.equal(mixed(*place), mixed(*place))
    for other in ((1, 5, 1, 0), (0, 6, 1, 0), (0, 5, 0, 0), (0, 5, 1, 1)):
        assert not torch.equal(mixed(*place), mixed(*other))
