"""What is done to a picture is done to its boxes and masks, whatever its size and however many objects it has."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hybridvit.data.seeding import seeded
from hybridvit.tasks.detect.config import DetectAugmentConfig
from hybridvit.tasks.detect.data_transforms import Objects, TrainGeometry, as_tensor

WIDTH, HEIGHT = 90, 60
RESIZES = ("whole", "detr", "jitter")


def scene(*boxes: tuple[int, int, int, int], masks: bool = True) -> tuple[Image.Image, Objects]:
    """Each box is filled with a level of its own, on black."""
    levels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    filled = torch.zeros(len(boxes), HEIGHT, WIDTH, dtype=torch.uint8)
    for number, (left, top, right, bottom) in enumerate(boxes):
        levels[top:bottom, left:right] = 100 + 50 * number
        filled[number, top:bottom, left:right] = 1
    objects = Objects(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.arange(len(boxes)),
        torch.tensor([[0.0, 0, WIDTH, HEIGHT]]),
        filled if masks else None,
    )
    return Image.fromarray(levels), objects


def geometry(**augment: Any) -> TrainGeometry:
    small = {"crop_sides": (50, 70), "crop_range": (32, 60)}
    return TrainGeometry(augment=DetectAugmentConfig(**small | augment), max_size=120)


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("masks", [True, False])
def test_boxes_and_masks_lie_on_what_they_were_drawn_around(resize: Any, masks: bool) -> None:
    picture, objects = scene((10, 5, 40, 30), (50, 20, 80, 55), masks=masks)
    seen = 0
    for number in range(30):
        with seeded("augment", number):
            shown, left = geometry(resize=resize, vflip=0.5, jitter=(0.7, 2.0))(picture, objects, 60)
        pixels = as_tensor(shown)[0].float()
        assert min(shown.size) >= 32
        assert left.ignored.flatten().tolist() == pytest.approx([0, 0, shown.width, shown.height])
        for place, label in enumerate(left.labels.tolist()):
            seen += 1
            x0, y0, x1, y1 = left.boxes[place].tolist()
            assert 0 <= x0 < x1 <= shown.width
            assert 0 <= y0 < y1 <= shown.height
            inner = pixels[round(y0) + 4 : round(y1) - 4, round(x0) + 4 : round(x1) - 4]  # edges are blurred
            assert (inner - (100 + 50 * label)).abs().max() < 3 if inner.numel() else True
            pixels[max(0, round(y0) - 4) : round(y1) + 4, max(0, round(x0) - 4) : round(x1) + 4] = 0
            if masks:
                assert left.masks is not None
                mask = left.masks[place].bool()
                ys, xs = mask.nonzero().T
                assert left.boxes[place].tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        assert pixels.max() < 60, "something is shown that has no box"
    assert seen > 20


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("masks", [True, False])
def test_pictures_without_objects_go_the_same_way(resize: Any, masks: bool) -> None:
    picture, objects = scene(masks=masks)
    for number in range(8):
        with seeded("augment", number):
            shown, left = geometry(resize=resize, photometric=0.5)(picture, objects, 60)
        assert left.boxes.shape == (0, 4)
        assert left.labels.shape == (0,)
        assert left.masks is None if not masks else left.masks.shape == (0, shown.height, shown.width)


def test_objects_of_one_pixel_are_kept() -> None:
    picture, objects = scene((10, 5, 11, 6), (WIDTH - 1, HEIGHT - 1, WIDTH, HEIGHT))
    _, left = geometry(hflip=0.0)(picture, objects, HEIGHT)
    assert left.boxes.tolist() == [[10, 5, 11, 6], [WIDTH - 1, HEIGHT - 1, WIDTH, HEIGHT]]
    _, left = geometry(hflip=1.0)(picture, objects, HEIGHT)
    assert left.boxes.tolist() == [[WIDTH - 11, 5, WIDTH - 10, 6], [0, HEIGHT - 1, 1, HEIGHT]]


def test_what_is_cut_off_is_gone_and_its_crowd_with_it() -> None:
    picture, objects = scene((0, 0, 8, 8), (70, 40, 90, 60))
    counts = set()
    for number in range(40):
        with seeded("augment", number):
            _, left = geometry(resize="jitter", jitter=(1.5, 2.0))(picture, objects, 48)
        assert left.masks is not None
        assert len(left.boxes) == len(left.labels) == len(left.masks)
        counts.add(len(left.boxes))
    assert counts >= {0, 1}


def test_the_shorter_side_is_what_is_asked_for_unless_the_longer_is_too_long() -> None:
    picture, objects = scene((10, 5, 40, 30))
    for side, size in ((60, (90, 60)), (40, (60, 40)), (100, (120, 80))):
        shown, left = geometry(hflip=0.0)(picture, objects, side)
        assert shown.size == size
        scale = size[0] / WIDTH
        assert (left.boxes[0] - torch.tensor([10, 5, 40, 30]) * scale).abs().max() <= 1


def test_the_square_of_jitter_is_never_exceeded_and_colours_leave_places_alone() -> None:
    picture, objects = scene((10, 5, 40, 30))
    sizes = set()
    for number in range(20):
        with seeded("augment", number):
            shown, _ = geometry(resize="jitter")(picture, objects, 64)
        sizes.add(shown.size)
        assert max(shown.size) <= max(64, 48)
    assert len(sizes) > 5
    with seeded("augment", 3):
        shown, left = geometry(hflip=0.0, photometric=1.0)(picture, objects, HEIGHT)
    assert left.boxes.tolist() == [[10, 5, 40, 30]]
    assert not np.array_equal(np.array(shown), np.array(picture))
