"""Hierarchical attention on its own: equal to a slow, plain form, local where it should be, and strict."""

import dataclasses
import math
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from conftest import relative_error, trained_like

import hybridvit
from hybridvit.errors import UsageError
from hybridvit.models.hat.attention import HierarchicalAttention
from hybridvit.models.hat.config import HATConfig

DIM, DEPTH = 12, 2


def hat(dim: int = DIM, depth: int = DEPTH, **options: object) -> HierarchicalAttention:
    config = HATConfig(**({"num_heads": 3, "mlp_ratio": 2, "position_hidden": 8} | options))
    return HierarchicalAttention(dim, depth, config)


def randomised(part: HierarchicalAttention) -> HierarchicalAttention:
    for name, parameter in trained_like(part).named_parameters():
        if name.endswith((".weight", "start")) and "to_" not in name and "mlp" not in name and "norm" not in name:
            torch.nn.init.normal_(parameter, std=0.5)  # Swin's tables and the learned start are zero at first
    return part


class Plain:
    """The same equations with loops: one window, one head, one pair of tokens after the other."""

    def __init__(self, part: HierarchicalAttention) -> None:
        self.part, self.config, self.weights = part, part.config, dict(part.named_parameters())

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.image(image) for image in x])

    def image(self, x: torch.Tensor) -> torch.Tensor:
        side, size = self.config.window_size, self.config.carrier_size
        channels, height, width = x.shape
        rows, columns = math.ceil(height / side), math.ceil(width / side)
        padded = x.new_zeros(channels, rows * side, columns * side)
        padded[:, :height, :width] = x
        windows = {
            (row, column): torch.stack(
                [padded[:, row * side + i, column * side + j] for i in range(side) for j in range(side)]
            )
            for row in range(rows)
            for column in range(columns)
        }
        carriers = self.start(padded, windows) if size and len(windows) > 1 else None
        for index in range(len(self.part.blocks)):
            windows, carriers = self.block(f"blocks.{index}.", windows, carriers)
        if carriers is not None and self.config.propagate:
            windows = self.propagated(f"blocks.{index}.", windows, carriers)
        result = torch.empty_like(padded)
        for (row, column), tokens in windows.items():
            for i in range(side):
                for j in range(side):
                    result[:, row * side + i, column * side + j] = tokens[i * side + j]
        return result[:, :height, :width]

    def start(self, padded, windows):
        size, side = self.config.carrier_size, self.config.window_size
        if self.config.carrier_source == "constant":
            return {place: self.weights["carriers.start"].expand(size**2, -1) for place in windows}
        if self.config.carrier_source == "tokens":
            return {}
        convolved = F.conv2d(
            padded, self.weights["carriers.conv.weight"], self.weights["carriers.conv.bias"], padding=1, groups=DIM
        )
        out = [size * (max(place[axis] for place in windows) + 1) for axis in (0, 1)]
        stride = [total // number for total, number in zip(padded.shape[1:], out, strict=True)]
        kernel = [
            total - (number - 1) * step for total, number, step in zip(padded.shape[1:], out, stride, strict=True)
        ]
        pooled = F.avg_pool2d(convolved[None], kernel, stride)[0]
        assert pooled.shape[1:] == (out[0], out[1])
        assert stride == [side // size] * 2
        return {
            (row, column): torch.stack(
                [pooled[:, row * size + i, column * size + j] for i in range(size) for j in range(size)]
            )
            for row, column in windows
        }

    def block(self, name, windows, carriers):
        side, size = self.config.window_size, self.config.carrier_size
        places = [(i, j) for i in range(side) for j in range(side)]
        if self.config.position_embedding:
            embedding = self.embedding(f"{name}position.embedding.mlp.", places, (side, side))
            windows = {place: tokens + embedding for place, tokens in windows.items()}
        if carriers is None:
            return {place: self.both(name, tokens, 0, places) for place, tokens in windows.items()}, None
        if self.config.carrier_source == "tokens":
            carriers = {
                place: F.adaptive_avg_pool2d(tokens.T.unflatten(1, (side, side)), size).flatten(1).T
                if side % size == 0
                else F.avg_pool2d(tokens.T.unflatten(1, (side, side))[None], side - (size - 1) * (side // size),
                                  side // size)[0].flatten(1).T
                for place, tokens in windows.items()
            }  # fmt: skip
        order = list(windows)
        of_map = torch.cat([carriers[place] for place in order])
        grid = [(row * size + i, column * size + j) for row, column in order for i in range(size) for j in range(size)]
        sides = (1 + max(place[0] for place in grid), 1 + max(place[1] for place in grid))
        if self.config.position_embedding:
            of_map = of_map + self.embedding(f"{name}carrier_position.mlp.", grid, sides)
        if self.config.carrier_attention:
            of_map = self.attention(f"{name}carrier_attention.", of_map, grid, sides, 0)
        of_map = self.mlp(f"{name}carrier_mlp.", of_map)
        carriers = dict(zip(order, of_map.split(size**2), strict=True))
        joint = {
            place: self.both(name, torch.cat((carriers[place], windows[place])), size**2, places) for place in order
        }
        windows = {place: tokens[size**2 :] for place, tokens in joint.items()}
        carriers = {place: tokens[: size**2] for place, tokens in joint.items()}
        if self.config.carrier_source == "tokens":
            return self.propagated(name, windows, carriers), carriers
        return windows, carriers

    def both(self, name, tokens, num_carriers, places):
        side = self.config.window_size
        return self.mlp(f"{name}mlp.", self.attention(f"{name}attention.", tokens, places, (side, side), num_carriers))

    def attention(self, name, tokens, places, sides, num_carriers):
        heads = self.config.num_heads
        normed = self.linear(f"{name}to_qkv", self.norm(name, tokens))
        q, k, v = normed.split(DIM, 1)
        bias = torch.zeros(heads, len(tokens), len(tokens), dtype=tokens.dtype)
        for query, (row, column) in enumerate(places):
            for key, (to_row, to_column) in enumerate(places):
                offset = (row - to_row, column - to_column)
                bias[:, num_carriers + query, num_carriers + key] = self.bias(f"{name}bias.", offset, sides)
        mixed = []
        for head, (each_q, each_k, each_v) in enumerate(
            zip(*(part.chunk(heads, 1) for part in (q, k, v)), strict=True)
        ):
            scores = each_q @ each_k.T / math.sqrt(DIM / heads) + bias[head]
            mixed.append(scores.softmax(1) @ each_v)
        return tokens + self.scale(name) * self.linear(f"{name}to_out", torch.cat(mixed, 1))

    @cache  # noqa: B019  # of an object that lives as long as its test
    def bias(self, name, offset, sides):
        if self.config.relative_bias == "none":
            return 0
        if self.config.relative_bias == "table" and "carrier" not in name:
            return self.weights[f"{name}weight"][:, offset[0] + sides[0] - 1, offset[1] + sides[1] - 1]
        spaced = [
            math.copysign(math.log2(abs(8 * step / max(side - 1, 1)) + 1) / math.log2(8), step)
            for step, side in zip(offset, sides, strict=True)
        ]
        return 16 * self.position_mlp(f"{name}mlp.", spaced).sigmoid()

    def embedding(self, name, places, sides):
        return torch.stack(
            [
                self.position_mlp(
                    name, [(at - side // 2) / (side // 2) if side > 1 else 0 for at, side in zip(p, sides, strict=True)]
                )
                for p in places
            ]
        )

    def position_mlp(self, name, values):
        x = torch.tensor(values, dtype=self.weights[f"{name}out.weight"].dtype)
        return self.weights[f"{name}out.weight"] @ self.linear(f"{name}hidden", x).relu()

    def mlp(self, name, tokens):
        inner = F.gelu(self.linear(f"{name}expand", self.norm(name, tokens)))
        return tokens + self.scale(name) * self.linear(f"{name}project", inner)

    def propagated(self, name, windows, carriers):
        side, size = self.config.window_size, self.config.carrier_size
        scale = self.scale(f"{name}carrier_attention.") if self.config.carrier_attention else 1
        nearest = [(i * size // side) * size + j * size // side for i in range(side) for j in range(side)]
        return {place: tokens + scale * carriers[place][nearest] for place, tokens in windows.items()}

    def scale(self, name):
        return self.weights.get(f"{name}layer_scale", torch.ones(()))

    def norm(self, name, x):
        return F.layer_norm(x, (DIM,), self.weights[f"{name}norm.weight"], self.weights[f"{name}norm.bias"])

    def linear(self, name, x):
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])


CASES = {
    "of FasterViT-0": ({}, (10, 17)),
    "of FasterViT-3": ({"layer_scale_init": 1.0, "propagate": True}, (14, 9)),
    "window 6, one carrier": ({"window_size": 6, "carrier_size": 1, "propagate": True}, (13, 6)),
    "window 7, nine carriers": ({"carrier_size": 3}, (8, 8)),
    "window 8": ({"window_size": 8, "layer_scale_init": 1.0}, (16, 5)),
    "window 9, nine carriers": ({"window_size": 9, "carrier_size": 3, "propagate": True}, (9, 18)),
    "no carriers": ({"window_size": 5, "carrier_size": 0}, (7, 11)),
    "one window": ({"propagate": True}, (7, 7)),
    "one row of windows": ({"propagate": True}, (3, 20)),
    "Swin's table": ({"relative_bias": "table", "layer_scale_init": 1.0}, (10, 10)),
    "no bias": ({"relative_bias": "none"}, (8, 8)),
    "no embedding": ({"position_embedding": False}, (8, 8)),
    "no carrier attention": ({"carrier_attention": False, "propagate": True, "layer_scale_init": 1.0}, (8, 8)),
    "constant carriers": ({"carrier_source": "constant", "propagate": True}, (8, 15)),
    "carriers from the tokens": ({"carrier_source": "tokens", "layer_scale_init": 1.0}, (8, 15)),
    "window of one": ({"window_size": 1, "carrier_size": 1}, (3, 2)),
}


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_it_equals_a_slow_plain_form(case):
    options, size = CASES[case]
    config = HATConfig(**({"num_heads": 3, "mlp_ratio": 2, "position_hidden": 8} | options))
    part = randomised(HierarchicalAttention(DIM, DEPTH, config, pad_small_maps=True)).double()
    x = torch.randn(2, DIM, *size, dtype=torch.float64)
    expected = Plain(part)(x)
    assert relative_error(part(x), expected) < 1e-12
    assert relative_error(part.float()(x.float()), expected) < 1e-6
    assert relative_error(hybridvit.fold(part)(x.float()), expected) < 1e-6
    assert relative_error(hybridvit.fold(part).for_map(*size)(x.float()), expected) < 1e-6


@pytest.mark.parametrize("carrier_size", [0, 2])
@torch.no_grad()
def test_only_carriers_reach_other_windows(carrier_size):
    part = randomised(hat(carrier_size=carrier_size)).double()
    x = torch.randn(1, DIM, 14, 14, dtype=torch.float64)
    changed = x.clone()
    changed[..., 2, 3] = torch.randn(1, DIM)
    moved = (part(x) - part(changed)).abs().amax((0, 1)) > 0
    assert moved[:7, :7].all()
    assert moved[7:].any() == moved[:, 7:].any() == (carrier_size > 0)
    assert not carrier_size or moved[7:, 7:].all()


@torch.no_grad()
def test_without_positions_the_order_of_tokens_and_windows_does_not_matter():
    part = randomised(hat(carrier_size=0, relative_bias="none", position_embedding=False))
    x = torch.randn(1, DIM, 14, 21)
    for dims in ((2,), (3,), (2, 3)):
        torch.testing.assert_close(part(x.flip(dims)), part(x).flip(dims))
    torch.testing.assert_close(part(x.mT), part(x).mT)
    torch.testing.assert_close(part(x.roll(7, 3)), part(x).roll(7, 3))


@torch.no_grad()
def test_the_images_of_a_batch_do_not_mix():
    part = randomised(hat(propagate=True))
    x = torch.randn(3, DIM, 10, 17)
    together = part(x)
    for index in range(3):
        torch.testing.assert_close(part(x[index : index + 1]), together[index : index + 1])


def test_any_memory_layout_gives_the_same():
    part = randomised(hat(propagate=True))
    x = torch.randn(2, DIM, 14, 17)
    torch.testing.assert_close(part(x.to(memory_format=torch.channels_last)), part(x))
    torch.testing.assert_close(part(x.mT.contiguous().mT), part(x))


def test_training_and_eval_mode_agree_without_stochastic_depth():
    part = randomised(hat(propagate=True, layer_scale_init=1.0))
    x = torch.randn(2, DIM, 10, 17)
    torch.testing.assert_close(part.train()(x), part.eval()(x), rtol=0, atol=0)


def test_stochastic_depth_drops_whole_images():
    config = HATConfig(num_heads=3, mlp_ratio=2, position_hidden=8, position_embedding=False)
    part = HierarchicalAttention(DIM, 1, config, drop_path_rates=[0.5]).train()
    for name, parameter in part.named_parameters():
        if ".carrier_" not in name and name.endswith("to_out.bias"):
            torch.nn.init.ones_(parameter)  # an attention of exactly one everywhere, and nothing else
        elif name.endswith(("to_out.weight", "project.weight", "project.bias", "to_out.bias")):
            torch.nn.init.zeros_(parameter)
    x = torch.zeros(400, DIM, 8, 8)
    added = part(x).flatten(1)
    assert (added == added[:, :1]).all()
    assert sorted(added[:, 0].unique().tolist()) == [0.0, 2.0]
    assert added.mean().item() == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize(
    "options",
    [{}, {"carrier_source": "constant"}, {"carrier_source": "tokens"}, {"carrier_attention": False},
     {"relative_bias": "table"}, {"relative_bias": "none", "position_embedding": False}],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("size", [(14, 15), (7, 7)])
def test_every_parameter_gets_a_gradient_in_training(options, size):
    part = hat(propagate=True, layer_scale_init=0.1, **options).train()
    part(torch.randn(2, DIM, *size)).square().sum().backward()
    assert [name for name, parameter in part.named_parameters() if parameter.grad is None] == []


def test_positions_fixed_for_one_map_refuse_others():
    part = randomised(hat()).for_map(14, 14)
    with pytest.raises(UsageError, match=r"The map is 14x21, its positions are fixed for 14x14\. Fold .* without"):
        part(torch.zeros(1, DIM, 14, 21))
    assert sum(p.numel() for p in part.parameters() if not p.requires_grad)


WRONG = {
    r"The map is 6x9, but the window 7x7\. Use a smaller window_size, a larger map, or pad_small_maps=True": {},
    r"carrier_size is 4 and the window 7x7, .* must divide .*Use one of 1, 2, 3, 6, 7, or 0": {"carrier_size": 4},
    r"dim is 12, but must be a multiple of num_heads \(5\)": {"num_heads": 5},
    r"drop_path_rates has 1 entries, but there are 2 blocks": {"drop_path_rates": [0.1]},
    r"depth is 0, but must be a whole number from 1": {"depth": 0},
    r"window_size is 7\.0, but must be a whole number from 1": {"window_size": 7.0},
    r"window_size is 129, but at most 128": {"window_size": 129},
    r"num_heads is True": {"num_heads": True},
    r"carrier_size is -1, but must be a whole number from 0": {"carrier_size": -1},
    r"carrier_source is 'maps', but must be one of 'map', 'constant', 'tokens'": {"carrier_source": "maps"},
    r"relative_bias is True, but must be one of 'mlp', 'table', 'none'": {"relative_bias": True},
    r"propagate is 1, but must be True or False": {"propagate": 1},
    r"layer_scale_init is -1, but must be a number from 0, like 1e-5, or None": {"layer_scale_init": -1},
    r"layer_scale_init is inf": {"layer_scale_init": float("inf")},
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("message", WRONG)
def test_wrong_values_are_errors_that_name_the_fix(message):
    options = {"num_heads": 3} | WRONG[message]
    with pytest.raises(UsageError, match=message):
        HierarchicalAttention(
            DIM,
            options.pop("depth", DEPTH),
            drop_path_rates=options.pop("drop_path_rates", None),
            config=HATConfig(**options),
        )(torch.zeros(1, DIM, 6, 9))


def test_the_configuration_is_a_value():
    config = HATConfig(num_heads=3)
    assert dataclasses.replace(config, window_size=8) == HATConfig(num_heads=3, window_size=8)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.window_size = 9
