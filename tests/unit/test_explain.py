"""Explanations are right: attention adds up, class maps have an independent oracle, folding changes none of them."""

from functools import cache

import pytest
import torch
from conftest import trained_like
from torch import nn

import hybridvit
from hybridvit.errors import UsageError
from hybridvit.explain.activation import (
    Target,
    class_activation,
    predicted,
    rank_correlation,
    with_random_last_stage,
)
from hybridvit.explain.kernels import depthwise_kernels
from hybridvit.explain.maps import block_map, carrier_share, plain_map, plain_rollout, rollout, window_matrix
from hybridvit.explain.positions import block_positions
from hybridvit.explain.receptive import receptive_field
from hybridvit.explain.recording import record_attention, recorded_attention
from hybridvit.folding.fold import fold
from hybridvit.models.attention import attention

SIZES = ((96, 96), (70, 133))  # the second needs padding in both directions
NAMES = ("fastvit_debug", "fastervit_debug")


@cache
def model_of(name: str, is_folded: bool = False) -> nn.Module:
    if is_folded:
        return fold(model_of(name))  # of the same weights, whichever test asks first
    torch.manual_seed(0)
    return trained_like(hybridvit.create_model(name, num_classes=5))


def picture(height: int = 96, width: int = 96) -> torch.Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(3))


def assert_rows_sum_to_one(matrix: torch.Tensor) -> None:
    torch.testing.assert_close(matrix.sum(-1), torch.ones_like(matrix.sum(-1)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("is_folded", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_attention_of_windows_carriers_and_the_whole_picture_sums_to_one(size, is_folded):
    model, image = model_of("fastervit_debug", is_folded), picture(*size)
    recording = record_attention(model, image)
    assert recording.stages
    for stage in recording.stages:
        for index, block in enumerate(stage.blocks):
            for recorded in (block.windows, block.carriers):
                if recorded is not None:
                    assert_rows_sum_to_one(recorded)
            assert_rows_sum_to_one(window_matrix(block))
            assert_rows_sum_to_one(block_map(stage, index).matrix)
            assert_rows_sum_to_one(rollout(stage, index).matrix)
            assert block_map(stage, index).of_query(0, 0).shape == stage.map_size
            assert (carrier_share(block) >= 0).all()


@pytest.mark.parametrize("is_folded", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_attention_of_fastvit_sums_to_one(size, is_folded):
    recording = record_attention(model_of("fastvit_debug", is_folded), picture(*size))
    for record in recording.maps:
        assert_rows_sum_to_one(record.weights)
        assert_rows_sum_to_one(plain_map(record).matrix)
    assert_rows_sum_to_one(plain_rollout(recording.maps).matrix)


def test_attention_to_padding_is_told_where_there_is_some():
    model = model_of("fastervit_debug")
    padded = record_attention(model, picture(70, 133)).stages[0]
    assert 0 < block_map(padded, 0).padding_mass < 1
    whole = record_attention(model, picture(96, 96)).stages
    sides = [(stage.map_size, stage.stage.config.window_size) for stage in whole]
    for stage, (size, side) in zip(whole, sides, strict=True):
        if not any(length % side for length in size):
            assert abs(block_map(stage, 0).padding_mass) < 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_folding_changes_no_attention(name):
    image = picture(70, 133)
    plain, folded = (record_attention(model_of(name, is_folded), image) for is_folded in (False, True))
    for one, other in zip(plain.stages, folded.stages, strict=True):
        torch.testing.assert_close(rollout(one, 0).matrix, rollout(other, 0).matrix, rtol=0, atol=1e-5)
    for one, other in zip(plain.maps, folded.maps, strict=True):
        torch.testing.assert_close(one.weights, other.weights, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_recording_changes_no_answer_and_leaves_nothing_behind(name):
    model, image = model_of(name), picture()
    with torch.no_grad():
        before = model(image)
        with recorded_attention(model):
            during = model(image)
        torch.testing.assert_close(during, before, rtol=1e-5, atol=1e-5)
        assert torch.equal(model(image), before)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_full_map_is_the_linear_map_that_windows_and_carriers_compute():
    """Attention applied to values directly, in the order of the block, gives the same sums as the full map."""
    model = trained_like(hybridvit.create_model("fastervit_debug", carrier_size=1))
    stage = record_attention(model, picture(96, 96)).stages[0]
    block, made = stage.blocks[0], block_map(stage, 0)
    layout = block.layout
    values = torch.randn(layout.carriers.rows * layout.carriers.columns, layout.window.side**2, 3).double()
    map_values = values.flatten(0, 1)[made.order.flatten()].unflatten(0, made.order.shape)  # h w c
    size = tuple(side * layout.carriers.side for side in (layout.carriers.rows, layout.carriers.columns))
    pooled = nn.functional.adaptive_avg_pool2d(map_values.permute(2, 0, 1), size)  # c h w
    carriers = pooled.unflatten(2, (layout.carriers.columns, -1)).unflatten(1, (layout.carriers.rows, -1))
    carriers = carriers.permute(1, 3, 2, 4, 0).flatten(2, 3).flatten(0, 1)  # windows l c
    exchanged = block.carriers.double().mean(1)[0] @ carriers.flatten(0, 1)
    both = torch.cat((exchanged.unflatten(0, carriers.shape[:2]), values), 1)
    expected = (block.windows.double().mean(1) @ both)[:, layout.carriers.side**2 :]
    torch.testing.assert_close(made.matrix @ values.flatten(0, 1), expected.flatten(0, 1))


def test_a_compiled_graph_is_refused():
    mixer = model_of("fastvit_debug").stages[3].blocks[0].mixer
    compiled = torch.compile(mixer, backend="eager")
    with torch.no_grad(), pytest.raises(UsageError, match="compiled or exported"), recorded_attention(mixer):
        compiled(torch.randn(1, 32, 3, 3))


def test_a_model_without_attention_is_refused():
    model = hybridvit.create_model("fastvit_debug", mixers=("repmixer",) * 4).eval()
    with pytest.raises(UsageError, match="no attention to record"):
        record_attention(model, picture())


def test_attention_outside_of_a_recording_is_the_fused_kernel():
    query, key, value = torch.randn(3, 2, 4, 6, 8)
    expected = nn.functional.scaled_dot_product_attention(query, key, value)
    assert torch.equal(attention(query, key, value), expected)


@pytest.mark.parametrize("method", ["grad", "hires", "layer"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stage", [None, 3])
def test_folding_changes_no_class_map(name, method, stage):
    if (name, method, stage) == ("fastervit_debug", "hires", 3):
        with pytest.raises(UsageError, match="cancel to zero"):
            class_activation(model_of(name), picture(), Target(label=2), method=method, stage=stage)
        return
    image = picture()
    plain, folded = (
        class_activation(model_of(name, is_folded), image, Target(label=2), method=method, stage=stage)
        for is_folded in (False, True)
    )
    torch.testing.assert_close(plain / plain.abs().max(), folded / plain.abs().max(), rtol=0, atol=1e-5)


def test_the_map_of_the_last_features_is_the_classifiers_weights():
    model, image = model_of("fastvit_debug"), picture()
    with torch.no_grad():
        features = model.forward_features(image)[0]
        weights = model.head.fc.weight[1] - model.head.fc.weight[3]
        expected = torch.einsum("c,chw->hw", weights, features) / features[0].numel()
    made = class_activation(model, image, Target(label=1, against=3))
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("name", NAMES)
def test_class_maps_are_those_of_captum(name):
    attr = pytest.importorskip("captum.attr", reason="captum is not installed")
    model, image = model_of(name), picture()
    layer = model.expand if name.startswith("fastvit") else model.stages[-1]
    expected = attr.LayerGradCam(model, layer).attribute(image, target=2)[0, 0].detach()
    made = class_activation(model, image, Target(label=2))
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_a_map_stays_when_the_last_stage_forgets(name):
    model, image = model_of(name), picture(160, 160)
    target = predicted(model, image)
    one = class_activation(model, image, target, stage=3)
    assert rank_correlation(one, one) == pytest.approx(1)
    assert rank_correlation(one, -one) == pytest.approx(-1)
    shuffled = [with_random_last_stage(model, seed=seed) for seed in range(5)]
    kept = [rank_correlation(one, class_activation(each, image, target, stage=3)) for each in shuffled]
    assert abs(sum(kept) / len(kept)) < 0.25  # single ones go up to 0.9: a map of these sizes has few places


def test_forgetting_keeps_the_values_of_each_weight_and_the_model_as_it_was():
    model = model_of("fastvit_debug")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    changed = dict(with_random_last_stage(model).named_parameters())
    for name, value in model.named_parameters():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
        torch.testing.assert_close(changed[name].flatten().sort()[0], value.flatten().sort()[0], rtol=0, atol=0)
    moved = {name.split(".")[0] for name, value in model.named_parameters() if not torch.equal(changed[name], value)}
    assert moved == {"stages", "expand"}


def test_ranks_of_equal_places_are_their_mean():
    from scipy.stats import spearmanr

    one, other = torch.tensor([[1.0, 2.0, 2.0], [3.0, 0.0, 2.0]]), torch.tensor([[2.0, 1.0, 4.0], [4.0, 4.0, 0.0]])
    assert rank_correlation(one, other) == pytest.approx(spearmanr(one.flatten(), other.flatten()).statistic)


@pytest.mark.parametrize("given", [{"method": "cam"}, {"stage": 9}])
def test_unknown_choices_are_refused(given):
    with pytest.raises(UsageError, match=r"must be|has 4"):
        class_activation(model_of("fastvit_debug"), picture(), Target(label=0), **given)
    with pytest.raises(UsageError, match="numbered from 0"):
        class_activation(model_of("fastvit_debug"), picture(), Target(label=5))


def test_folding_changes_no_position():
    plain, folded = (block_positions(model_of("fastervit_debug", is_folded), (96, 96)) for is_folded in (False, True))
    assert plain
    for one, other in zip(plain, folded, strict=True):
        for field in ("window_bias", "carrier_bias", "window_norm", "carrier_norm"):
            torch.testing.assert_close(getattr(one, field), getattr(other, field), rtol=1e-5, atol=1e-5)
    side = 2 * model_of("fastervit_debug").stages[2].body.config.window_size - 1
    assert plain[0].window_bias.shape[1:] == (side, side)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stage", [None, 2])
def test_folding_changes_no_receptive_field(name, stage):
    plain, folded = (receptive_field(model_of(name, is_folded), picture(), stage=stage) for is_folded in (False, True))
    largest = plain.gradient.max()
    torch.testing.assert_close(plain.gradient / largest, folded.gradient / largest, rtol=0, atol=1e-5)
    assert plain.side_px(0.2) <= plain.side_px(0.5) <= plain.side_px(0.99) <= 96


def test_branches_add_up_to_the_folded_kernel():
    model = model_of("fastvit_debug")
    layers = depthwise_kernels(model)
    assert {len(layer.branches) for layer in layers} >= {2}
    for layer in layers:
        assert layer.max_difference <= 1e-6 * max(1, layer.folded.abs().max().item())
        assert layer.share_inside(1) <= layer.share_inside(3) <= layer.share_inside(99) == pytest.approx(1)
    folded = {layer.name: layer for layer in depthwise_kernels(fold(model))}
    assert len(folded) == len(layers)
    for layer, again in zip(layers, folded.values(), strict=True):
        torch.testing.assert_close(layer.folded, again.folded)
        assert again.max_difference is None
