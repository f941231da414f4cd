"""The z-buffer draws what a loop over faces draws, and as much of it as there is."""

import numpy as np
import pytest

from hybridvit.tasks.hand.drawn import raster
from hybridvit.tasks.hand.drawn.raster import NOTHING, rasterise

SIZE = (40, 50)


def by_loop(points: np.ndarray, depth: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Face, depth and barycentric coordinates of each pixel, face after face."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    found, far, weights = np.full(SIZE, NOTHING), np.full(SIZE, np.inf), np.zeros((*SIZE, 3))
    for number, face in enumerate(faces):
        matrix = np.vstack((points[face].T, np.ones(3)))
        if abs(np.linalg.det(matrix)) < 1e-12 or (depth[face] <= 0).any():
            continue
        plane = np.einsum("ij,jhw->hwi", np.linalg.inv(matrix), np.stack((x, y, np.ones(SIZE))))
        in_space = plane / depth[face]
        with np.errstate(divide="ignore"):
            here = 1 / in_space.sum(2)
        nearer = (plane >= -1e-9).all(2) & (here < far - 1e-9)
        found[nearer], far[nearer] = number, here[nearer]
        weights[nearer] = (in_space * here[..., None])[nearer]
    return found, far, weights


@pytest.mark.parametrize("at_once", [1 << 21, 500])
def test_all_faces_at_once_are_drawn_as_one_after_the_other(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raster, "MOST_AT_ONCE", at_once)
    dice = np.random.default_rng(0)
    points, depth = dice.uniform(-15, 65, (60, 2)), dice.uniform(-0.2, 3, 60)
    faces = dice.integers(0, 60, (90, 3))  # some without area, some behind the camera, most reach out of the picture
    drawn = rasterise(points, depth, faces, SIZE)
    found, far, weights = by_loop(points, depth, faces)
    assert len(np.unique(found)) > 10
    np.testing.assert_array_equal(drawn.face, found)
    np.testing.assert_array_equal(drawn.mask, found != NOTHING)
    np.testing.assert_allclose(drawn.depth, far, rtol=1e-12)
    np.testing.assert_allclose(drawn.barycentric, weights, atol=1e-12)
    np.testing.assert_allclose(drawn.interpolated(depth[:, None], faces)[:, 0], far[found != NOTHING], rtol=1e-12)


def test_a_triangle_covers_its_area_and_neighbours_leave_no_gap() -> None:
    corners = np.array(((3.2, 4.1), (195.7, 30.3), (60.4, 180.9), (190.2, 171.3)))
    (x1, y1), (x2, y2) = corners[1] - corners[0], corners[2] - corners[0]
    one = rasterise(corners, np.ones(4), np.array([[0, 1, 2]]), (200, 200))
    assert one.mask.sum() == pytest.approx(abs(x1 * y2 - y1 * x2) / 2, rel=0.003)
    both = rasterise(corners, np.ones(4), np.array([[0, 1, 2], [2, 1, 3]]), (200, 200))
    inside = np.flatnonzero(both.mask.any(1))
    for row in both.mask[inside[0] : inside[-1] + 1]:
        assert row[np.flatnonzero(row)[0] : np.flatnonzero(row)[-1] + 1].all()


def test_of_equally_near_faces_the_first_is_seen_and_what_is_nowhere_is_left_out() -> None:
    corners = np.array(((0, 0), (8, 0), (0, 8), (np.nan, 1)), float)
    drawn = rasterise(corners, np.ones(4), np.array([[0, 1, 3], [0, 1, 2], [0, 2, 1]]), (8, 8))
    assert set(np.unique(drawn.face)) == {NOTHING, 1}
    assert np.isinf(drawn.depth[~drawn.mask]).all()
