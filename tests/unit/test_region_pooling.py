"""Regions pooled from the level of the pyramid that they belong to, sorted by it or all at once."""

import pytest
import torch
from torchvision.ops import roi_align

from hybridvit.tasks.detect.heads.pooling import RegionPooling


def test_levels_without_regions_are_not_pooled() -> None:
    pool = RegionPooling(size=7, canonical_px=48, aligned=True)
    levels = [torch.randn(2, 3, side, side, requires_grad=True) for side in (24, 12, 6, 3, 2)]
    regions = torch.tensor([[0.0, 3, 4, 20, 21], [1.0, 1, 2, 61, 62], [0.0, 30, 30, 40, 40]])  # strides 4, 16 and 4
    pooled = pool(levels, regions)
    pooled.sum().backward()
    assert [level.grad is not None for level in levels] == [True, False, True, False, False]
    expected = (
        roi_align(levels[0], regions, (7, 7), 1 / 4, 2, True),
        roi_align(levels[2], regions, (7, 7), 1 / 16, 2, True),
    )
    assert torch.equal(pooled[[0, 2]], expected[0][[0, 2]])
    assert torch.equal(pooled[1], expected[1][1])
    assert pool(levels, regions[:0]).shape == (0, 3, 7, 7)


@pytest.mark.parametrize("aligned", [True, False])
def test_an_exported_graph_pools_each_region_from_its_level(aligned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = RegionPooling(size=7, canonical_px=48, aligned=aligned)
    levels = [torch.randn(2, 3, -(-97 // stride), -(-131 // stride)) for stride in (4, 8, 16, 32)]
    corners = torch.rand(200, 2) * torch.tensor([131, 97])
    sides = torch.rand(200, 2) ** 3 * 200
    boxes = torch.cat((corners, torch.minimum(corners + sides, torch.tensor([131.0, 97.0]))), 1)
    boxes[:2] = torch.tensor([[0.0, 0, 131, 97], [130.5, 96.5, 131, 97]])  # the whole picture, and its last corner
    boxes[2, 1] = torch.nan
    regions = torch.cat((torch.arange(200).float()[:, None] % 2, boxes), 1)
    expected = pool(levels, regions)
    monkeypatch.setattr("hybridvit.tasks.detect.heads.pooling.keeps_shapes", lambda _: True)
    torch.testing.assert_close(pool(levels, regions), expected, rtol=1e-6, atol=1e-6)
