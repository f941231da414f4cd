"""What every registered model promises. A new model is tested by being in the table."""

import pytest
import torch
from conftest import contract_model, every_model, first_of_each_kind, sizes_px, trained_like

import hybridvit


@pytest.mark.parametrize("name", every_model())
def test_every_parameter_gets_a_gradient_and_the_state_keeps_its_shape(name):
    model = contract_model(name, num_classes=3, drop_path_rate=0.1)
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    for size in sizes_px(name):  # each by itself: DDP refuses a parameter that one step leaves out
        model.zero_grad()
        model(torch.randn(2, 3, *size)).square().sum().backward()
        assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []
    assert {key: value.shape for key, value in model.state_dict().items()} == shapes
    assert not any(buffer.requires_grad for buffer in model.buffers())


@pytest.mark.parametrize("name", first_of_each_kind())
def test_saving_and_loading_gives_the_same_model_in_every_form(name, tmp_path):
    model = trained_like(contract_model(name, num_classes=3))
    released = [hybridvit.fold(model, released=True)] if model.has_released_form else []
    for form in (model, *released, hybridvit.fold(model)):
        path = tmp_path / f"{form.card.form}.safetensors"
        hybridvit.save_checkpoint(form, path)
        again = hybridvit.load(path)
        assert again.card == form.card
        assert not again.training
        for (key, value), (key_again, value_again) in zip(
            form.state_dict().items(), again.state_dict().items(), strict=True
        ):
            assert key == key_again
            assert torch.equal(value, value_again)


@pytest.mark.parametrize("name", every_model())
@pytest.mark.parametrize("form", ["training", "eval", "folded", "pyramid"])
def test_a_batch_of_no_images_gives_no_answers(name, form):
    options = {"features_only": True} if form == "pyramid" else {"num_classes": 3}
    model = trained_like(contract_model(name, drop_path_rate=0.1, **options)).train(form in ("training", "pyramid"))
    model = hybridvit.fold(model) if form == "folded" else model
    statistics = {key: value.clone() for key, value in model.named_buffers() if "running" in key}
    height, width = sizes_px(name)[0]
    answers = model(torch.randn(0, 3, height, width))
    if form == "pyramid":
        assert [(len(fmap), fmap.shape[1]) for fmap in answers] == [(0, channels) for channels in model.channels]
    else:
        assert answers.shape == (0, 3)
    if model.training:
        sum(part.sum() for part in (answers if form == "pyramid" else [answers])).backward()
        for key, parameter in model.named_parameters():
            assert parameter.grad is not None, key
            assert not parameter.grad.any(), key
        assert all(torch.equal(value, statistics[key]) for key, value in model.named_buffers() if key in statistics)
