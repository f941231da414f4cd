"""One model for images of any size, in any order, whatever was done to its weights between two of them."""

import copy
import pickle

import pytest
import torch
from conftest import contract_model, relative_error, trained_like
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import hybridvit
from hybridvit.errors import UsageError
from hybridvit.models.fastervit.config import VARIANTS
from hybridvit.models.hat.position import Grid, LogSpacedBias, PositionEmbedding

SIZES = ((224, 224), (256, 192), (225, 333), (1024, 512), (96, 640), (32, 32), (224, 224))
DEBUG_SIZES = ((64, 64), (96, 48), (65, 131), (256, 33), (32, 32), (64, 64))
IMAGES = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def debug(seed: int = 0) -> nn.Module:
    return trained_like(hybridvit.create_model("fastervit_debug", num_classes=10), seed)


def same_but_new(model: nn.Module) -> nn.Module:
    """A freshly built model with the weights of `model`."""
    weight = next(model.parameters())
    fresh = hybridvit.create_model("fastervit_debug", num_classes=model.num_classes).to(weight.dtype)
    fresh.load_state_dict(copy.deepcopy(model.state_dict()))
    return fresh.eval()


def check(model: nn.Module, images: torch.Tensor = IMAGES) -> None:
    with torch.no_grad():
        assert torch.equal(model(images), same_but_new(model)(images))


class TestOneModelTakesEverySize:
    @pytest.mark.parametrize("folded", [False, True])
    @pytest.mark.parametrize(
        ("name", "sizes"), [("fastervit_debug", DEBUG_SIZES), ("fastervit_3", SIZES), ("fastervit_4_21k_224", SIZES)]
    )
    @torch.no_grad()
    def test_as_if_built_for_it(self, name, sizes, folded):
        model = trained_like(contract_model(name, num_classes=10))
        shapes = {key: value.shape for key, value in model.state_dict().items()}
        candidate = hybridvit.fold(model) if folded else model
        for size in sizes:
            images = torch.randn(1, 3, *size)
            fresh = copy.deepcopy(model)
            assert torch.equal(candidate(images), (hybridvit.fold(fresh) if folded else fresh)(images))
        assert {key: value.shape for key, value in model.state_dict().items()} == shapes
        assert not any(buffer.requires_grad for buffer in candidate.buffers())

    def test_height_and_width_are_not_confused(self):
        model, images = debug(), torch.randn(1, 3, 64, 128)
        with torch.no_grad():
            wide, high = (model.features(x)["stride_16"].shape[-2:] for x in (images, images.mT))
            assert (wide, high) == ((4, 8), (8, 4))
            assert relative_error(model(images.mT), model(images)) > 1e-3

    def test_training_with_images_of_changing_size(self):
        model = hybridvit.create_model("fastervit_debug", num_classes=3)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        images, labels = torch.randn(6, 3, 160, 96), torch.tensor([0, 1, 2] * 2)
        losses = []
        for step in range(30):
            size = ((160, 96), (64, 64), (90, 131), (48, 160))[step % 4]
            loss = nn.functional.cross_entropy(model(nn.functional.interpolate(images, size)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert max(losses[-4:]) < 0.5 * losses[0]
        check(model.eval())

    @pytest.mark.parametrize("size", [(32, 32), (48, 48), (64, 64), (97, 32)])
    @pytest.mark.parametrize("name", ["fastervit_debug", "fastervit_0", "fastervit_3"])
    def test_every_parameter_gets_a_gradient(self, name, size):
        model = contract_model(name, num_classes=3, **({} if "debug" in name else {"widths": (16, 32, 64, 128)}))
        model(torch.randn(2, 3, *size)).sum().backward()
        assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())

    def test_the_unused_carriers_of_one_window_change_nothing(self):
        model, images = debug(), torch.randn(2, 3, 48, 48)
        before = model(images)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "carrier" in name:
                    parameter.add_(1)
        assert torch.equal(model(images), before)
        gradients = torch.autograd.grad(model.train()(images).sum(), list(model.parameters()))
        for (name, _), gradient in zip(model.named_parameters(), gradients, strict=True):
            assert ("carrier" not in name) or not gradient.any(), name

    def test_other_windows_take_the_same_weights(self):
        first = contract_model("fastervit_3", num_classes=5)
        state, images = first.state_dict(), torch.randn(1, 3, 384, 320)
        outputs = []
        for stage3, stage4 in ((7, 7), (8, 8), (12, 12), (16, 8), (24, 12)):
            model = contract_model("fastervit_3", num_classes=5, image_size=384, windows=(7, 7, stage3, stage4)).eval()
            model.load_state_dict(trained_like(first).state_dict(), strict=True)
            assert {key: value.shape for key, value in model.state_dict().items()} == {
                key: value.shape for key, value in state.items()
            }
            with torch.no_grad():
                outputs.append(model(images))
        assert all(output.isfinite().all() for output in outputs)
        assert len({output.sum().item() for output in outputs}) == len(outputs)

    def test_windows_that_no_map_fills_are_refused(self):
        config = VARIANTS["fastervit_4_21k_384"]
        config.check_image_size(["windows"], 384, 384)
        config.check_image_size(["windows"], 224, 384)
        message = r"windows\[2\] is 24, but at 224x224 px the map of that stage is only 14x14: .* up to 14"
        with pytest.raises(UsageError, match=message):
            config.check_image_size(["windows"], 224, 224)
        with pytest.raises(UsageError, match=r"windows\[2\] is 64, but at 224x224 px"):
            hybridvit.create_model("fastervit_0", windows=(7, 7, 64, 7))


class TestPositionsAreThoseOfTheWeights:
    def test_after_load_state_dict(self):
        model = debug()
        for assign in (False, True):
            check(model)
            model.load_state_dict(debug(seed=1 + assign).state_dict(), assign=assign)
            check(model)

    def test_after_a_change_of_dtype_and_of_device(self):
        model = debug()
        with torch.no_grad():
            single = model(IMAGES)
            assert relative_error(model.double()(IMAGES.double()), single) < 1e-5
            check(model, IMAGES.double())
            assert relative_error(model.float()(IMAGES), single) < 1e-5
            assert relative_error(model.half()(IMAGES.half()), single) < 2e-2
            check(model, IMAGES.half())
            assert model.float().to("meta")(IMAGES.to("meta")).is_meta

    @pytest.mark.parametrize("fused", [False, True])
    @pytest.mark.parametrize("training", [False, True])
    def test_after_an_optimizer_step(self, fused, training):
        model = debug()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=fused)
        check(model)
        model.train(training)(IMAGES).square().mean().backward()
        model.eval()
        check(model)
        optimizer.step()
        check(model)

    @pytest.mark.parametrize("foreach", [False, True])
    def test_of_a_moving_average_in_eval_mode(self, foreach):
        model, other = debug(), debug(seed=1)
        for average in (
            ModelEmaV3(model, decay=0.5, foreach=foreach),
            AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5) if foreach else None),
        ):
            average.module.eval()
            for _ in range(2):
                check(average.module)
                update = average.update if isinstance(average, ModelEmaV3) else average.update_parameters
                update(other)
            check(average.module)
        check(model)

    @pytest.mark.parametrize("through", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
    def test_of_a_copy(self, through):
        model = debug()
        check(model)
        again = through(model)
        with torch.no_grad():
            for parameter in again.parameters():
                parameter.mul_(1.3)
        check(again)
        check(model)

    def test_after_writes_without_a_trace(self):
        model = debug()
        check(model)
        for parameter in model.parameters():
            parameter.data.mul_(1.3)
        check(model)

    def test_after_other_writes(self):
        model = debug()

        @torch.inference_mode()
        def in_inference_mode():
            for parameter in model.parameters():
                parameter.mul_(1.1)

        def through_vectors():
            vector = nn.utils.parameters_to_vector(model.parameters()).detach()
            nn.utils.vector_to_parameters(vector * 1.1, model.parameters())

        def of_a_module():
            term = next(module for module in model.modules() if isinstance(module, PositionEmbedding))
            term.mlp.hidden = nn.Linear(2, term.mlp.hidden.out_features)

        for write in (in_inference_mode, through_vectors, of_a_module):
            check(model)
            write()
            check(model)

    @pytest.mark.parametrize("folded", [False, True])
    def test_autocast_before_does_not_poison_single_precision(self, folded):
        model = hybridvit.fold(debug()) if folded else debug()
        with torch.no_grad():
            expected = copy.deepcopy(model)(IMAGES)
            with torch.autocast("cpu", torch.bfloat16):
                low = model(IMAGES)
            assert torch.equal(model(IMAGES), expected)
            with torch.autocast("cpu", torch.bfloat16):
                assert torch.equal(model(IMAGES), low)
        assert 1e-4 < relative_error(low, expected) < 3e-2

    @torch.no_grad()
    def test_positions_are_computed_in_full_precision_under_autocast(self):
        bias, grid = LogSpacedBias(4, 32), Grid(1, 1, 7)
        expected = bias.eval().compute(grid)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(bias(grid, torch.bfloat16), expected.to(torch.bfloat16))
            assert torch.equal(bias(grid, torch.float32), expected)
        assert torch.equal(bias(grid, torch.float32), expected)

    def test_what_inference_mode_made_serves_a_later_backward(self):
        model = debug()
        with torch.inference_mode():
            model(IMAGES)
        images = IMAGES.clone().requires_grad_()
        model.requires_grad_(False)(images).sum().backward()
        assert images.grad.abs().sum() > 0
        model.requires_grad_(True).zero_grad()
        model(IMAGES).sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())

    def test_gradients_in_eval_mode_equal_those_of_a_fresh_model(self):
        model = debug()
        check(model)
        fresh = same_but_new(model)
        for candidate in (model, fresh):
            candidate(IMAGES).square().sum().backward()
        for one, other in zip(model.parameters(), fresh.parameters(), strict=True):
            assert torch.equal(one.grad, other.grad)

    def test_a_call_with_other_parameters_leaves_the_model_alone(self):
        model, other = debug(), debug(seed=1)
        check(model)
        with torch.no_grad():
            swapped = torch.func.functional_call(model, dict(other.state_dict()), (IMAGES,))
            assert torch.equal(swapped, other(IMAGES))
        check(model)
