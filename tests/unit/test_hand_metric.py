"""What hands are judged by equals FreiHAND's official script."""

from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes
from scipy.spatial import cKDTree

from hybridvit.tasks.hand.alignment import aligned
from hybridvit.tasks.hand.mesh_errors import Errors, Points, aligned_errors, errors, f_scores

GOLDEN = Path(__file__).parents[1] / "golden" / "freihand_metrics.npz"
NAMES = Errors(
    keypoints="xyz{}_mean_m", keypoints_auc="xyz{}_auc", vertices="mesh{}_mean_m", vertices_auc="mesh{}_auc",
    f5="f5{}", f15="f15{}",
)  # fmt: skip


def official_alignment(points: np.ndarray, truth: np.ndarray) -> np.ndarray:
    wanted, given = truth - truth.mean(0), points - points.mean(0)
    norms = [np.linalg.norm(each) + 1e-8 for each in (wanted, given)]
    turn, scale = orthogonal_procrustes(wanted / norms[0], given / norms[1])
    return (given / norms[1]) @ turn.T * scale * norms[0] + truth.mean(0)


def cloud(seed: int, points: int = 21, hands: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal((0.02, -0.03, 0.7), 0.05, (hands, points, 3))


@pytest.mark.parametrize("align", [False, True])
def test_every_number_is_that_of_the_official_script(align):
    with np.load(GOLDEN) as stored:
        golden = dict(stored)
    given, truth = (Points(golden["xyz" + end], golden["verts" + end]) for end in ("_pred", ""))
    found = aligned_errors(given, truth).errors if align else errors(given, truth)
    for name, values in found._asdict().items():
        wanted = golden[getattr(NAMES, name).format("_al" if align else "")]
        assert values.mean() == pytest.approx(wanted, rel=1e-9, abs=0), name


def test_alignment_is_procrustes_with_scale():
    points, truth = cloud(1, hands=3), cloud(2, hands=3)
    wanted = np.stack([official_alignment(one, other) for one, other in zip(points, truth, strict=True)])
    np.testing.assert_allclose(aligned(points, truth).points, wanted, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", ["identical", "mirrored", "collinear", "one point", "far"])
def test_degenerate_clouds_are_aligned_too(name):
    truth = cloud(3)
    points = {
        "identical": truth,
        "mirrored": truth * [-1, 1, 1],
        "collinear": np.linspace(0, 1, 21)[None, :, None] * np.array([0.1, 0.2, 0.3]),
        "one point": np.zeros((1, 21, 3)),
        "far": truth * 1000 + 5,
    }[name]
    found = aligned(points, truth)
    np.testing.assert_allclose(found.points[0], official_alignment(points[0], truth[0]), rtol=0, atol=1e-12)
    if name in ("identical", "mirrored", "far"):
        assert np.abs(found.points - truth).max() < 1e-7
        assert found.reflected.tolist() == [name == "mirrored"]


def test_what_is_not_finite_is_refused():
    points = cloud(4)
    points[0, 3, 1] = np.nan
    with pytest.raises(ValueError, match="finite numbers"):
        aligned(points, cloud(5))


@pytest.mark.parametrize("spread", [0.0, 0.003, 0.02, 1.0])
def test_f_scores_are_those_of_a_search_tree(spread):
    truth = cloud(6, 778)[0]
    points = truth + np.random.default_rng(7).normal(0, spread, truth.shape)
    distances = cKDTree(truth).query(points)[0], cKDTree(points).query(truth)[0]
    for found, threshold in zip(f_scores(points, truth), (0.005, 0.015), strict=True):
        precision, recall = (float((each < threshold).mean()) for each in distances)
        wanted = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        assert found == pytest.approx(wanted, abs=1e-12)
