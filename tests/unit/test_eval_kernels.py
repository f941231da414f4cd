"""Unfolded models compute on their folded kernels in eval mode, and these are never stale."""

import copy

import pytest
import torch
from conftest import branches_of, relative_error, trained_like
from torch import nn
from torch.nn.utils import prune

import hybridvit
from hybridvit.folding.foldable import branch_by_branch


class TestEvalKernels:
    """Unfolded models compute on their folded kernels in eval mode, and these are never stale."""

    images = torch.randn(2, 3, 33, 64, generator=torch.Generator().manual_seed(1))

    def check(self, model):
        with torch.no_grad():
            assert relative_error(model(self.images), branches_of(model, self.images)) < 1e-5

    def test_after_load_state_dict(self, debug_model):
        self.check(debug_model)
        other = trained_like(hybridvit.create_model("fastvit_debug", num_classes=10), seed=1)
        for assign in (False, True):
            debug_model.load_state_dict(other.state_dict(), assign=assign)
            self.check(debug_model)
            other = trained_like(other, seed=2)

    @pytest.mark.parametrize("fused", [False, True])
    def test_after_an_optimizer_step_in_training_and_in_eval_mode(self, fused, debug_model):
        optimizer = torch.optim.AdamW(debug_model.parameters(), lr=0.1, fused=fused)
        for mode in (True, False):
            self.check(debug_model)
            debug_model.train(mode)(self.images).square().mean().backward()
            debug_model.eval()
            self.check(debug_model)  # makes the kernels anew just before the step
            optimizer.step()
            self.check(debug_model)

    def test_after_a_change_of_dtype_and_of_device(self, debug_model):
        self.check(debug_model)
        images = self.images.double()
        model = debug_model.double()
        with torch.no_grad():
            assert relative_error(model(images), branches_of(model, images)) < 1e-12
        with torch.no_grad():
            assert model.to("meta")(images.to("meta")).device.type == "meta"

    def test_after_a_copy_and_an_update_of_the_copy(self, debug_model):
        self.check(debug_model)
        average = copy.deepcopy(debug_model)
        with torch.no_grad():
            for value in average.parameters():  # as an exponential moving average does, in eval mode
                value.lerp_(torch.randn_like(value), 0.1)
        self.check(average)
        self.check(debug_model)

    def test_after_batch_statistics_changed(self, debug_model):
        self.check(debug_model)
        debug_model.train()
        with torch.no_grad():
            debug_model(self.images + 3)
        self.check(debug_model.eval())

    def test_after_a_module_was_replaced_or_changed(self, debug_model):
        block = debug_model.stages[0].blocks[0].mixer
        changes = (
            lambda: setattr(block, "norm", trained_like(nn.BatchNorm2d(4), seed=5)),
            lambda: setattr(block.norm, "eps", 0.5),
            lambda: setattr(block.mixer.kxk, "conv", nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False)),
            lambda: setattr(block.mixer, "scale", None),
            lambda: prune.random_unstructured(block.mixer.kxk.conv, "weight", amount=0.5),
        )
        for change in changes:
            self.check(debug_model)
            change()
            self.check(debug_model)

    def test_a_kernel_made_in_inference_mode_serves_a_later_backward(self, debug_model):
        with torch.inference_mode():
            debug_model(self.images)
        images = self.images.clone().requires_grad_()
        debug_model.requires_grad_(False)(images).sum().backward()
        assert images.grad.abs().sum() > 0

    def test_gradients_in_eval_mode_reach_every_branch(self, debug_model):
        gradients = []
        for by_branches in (False, True):
            debug_model.zero_grad()
            if by_branches:
                with branch_by_branch(debug_model):
                    debug_model(self.images).square().mean().backward()
            else:
                debug_model(self.images).square().mean().backward()
            gradients.append([parameter.grad.clone() for parameter in debug_model.parameters()])
        for kernel, branch in zip(*gradients, strict=True):
            assert relative_error(kernel, branch) < 1e-4

    def test_frozen_norms_in_training_mode_compute_as_in_eval_mode(self, debug_model):
        expected = branches_of(debug_model, self.images)
        debug_model.train()
        for module in debug_model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        assert relative_error(debug_model(self.images), expected) < 1e-5
