"""What hands are judged by equals FreiHAND's official script."""

import json
import logging
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes
from scipy.spatial import cKDTree

from hybridvit.batch import Batch
from hybridvit.card import ModelCard, Preprocessing
from hybridvit.errors import DatasetError, NonFiniteError, UsageError
from hybridvit.tasks.hand.freihand.alignment import aligned
from hybridvit.tasks.hand.freihand.mesh_errors import Errors, Points, aligned_errors, errors, f_scores
from hybridvit.tasks.hand.freihand.submission import Submission
from hybridvit.tasks.hand.mano.generated_hand import generated_hand
from hybridvit.tasks.hand.metric import HandMetric
from hybridvit.tasks.hand.quantities import QUANTITIES

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


# ---- the metric of a set


def golden() -> tuple[dict[str, Any], dict[str, Any]]:
    with np.load(GOLDEN) as stored:
        arrays = {name: stored[name] for name in stored}
    keys = {"keypoints": "xyz", "vertices": "verts"}
    given, true = ({name: torch.from_numpy(arrays[key + end]) for name, key in keys.items()} for end in ("_pred", ""))
    camera = torch.tensor([[300.0, 0.0, 64.0], [0.0, 300.0, 64.0], [0.0, 0.0, 1.0]])
    return given, true | {"camera": camera.expand(len(true["keypoints"]), 3, 3)}


def batch_of(targets: dict[str, Any], first: int = 0) -> Batch:
    count = len(targets["keypoints"])
    return Batch(torch.zeros(count, 3, 128, 128), targets, torch.arange(first, first + count), (None,) * count)


def rows(values: dict[str, Any], chosen: slice) -> dict[str, Any]:
    return {name: each[chosen] for name, each in values.items()}


def judged(given: dict[str, Any], true: dict[str, Any]) -> Any:
    metric = HandMetric(ModelCard(architecture="x", task="hand"), num_examples=0)
    for chosen in (slice(0, 3), slice(3, None)):  # batches
        metric.update(rows(given, chosen), batch_of(rows(true, chosen), chosen.start))
    return metric.compute()


def test_scores_are_in_millimetres_and_do_not_depend_on_batches():
    given, true = golden()
    scores = judged(given, true)
    with np.load(GOLDEN) as stored:
        assert scores.values["pa_mpjpe"] == pytest.approx(1000 * stored["xyz_al_mean_m"], rel=1e-9)
        assert scores.values["pa_mpvpe"] == pytest.approx(1000 * stored["mesh_al_mean_m"], rel=1e-9)
        assert scores.values["f15"] == pytest.approx(stored["f15_al"], rel=1e-9)
    assert list(scores.values) == [quantity.name for quantity in QUANTITIES]
    assert QUANTITIES[0].text(scores.values["pa_mpjpe"]) == "10.80 mm"
    assert QUANTITIES[0].better(5.0, 6.0)
    assert scores.per_image.mean() == pytest.approx(scores.values["pa_mpjpe"], rel=1e-12)
    assert scores.details["unaligned"] is None
    assert scores.parts[0].rows[0] == ["Keypoints, mean error in mm", "10.80", "–", "–"]
    assert json.loads(json.dumps(scores.details)) == scores.details


def test_hands_are_put_where_the_camera_sees_them():
    given, true = golden()
    roots = true["keypoints"][:, :1].double()
    relative = {name: true[name].double() - roots for name in given}
    weak = []
    for root, camera in zip(roots[:, 0], true["camera"].double(), strict=True):
        pixel = (camera @ root)[:2] / root[2]
        weak.append([2 * 300 / (128 * float(root[2])), *(2 * pixel / 128 - 1).tolist()])
    scores = judged(relative | {"camera": torch.tensor(weak, dtype=torch.float64)}, true)
    assert scores.details["unaligned"]["keypoints"] < 1e-7
    assert scores.details["unaligned"]["f5"] == 1.0
    assert "weak perspective" in scores.parts[0].note


def test_mirrored_hands_are_counted_and_warned_about(caplog):
    _, true = golden()
    mirror = torch.tensor([-1.0, 1.0, 1.0])
    with caplog.at_level(logging.WARNING):
        scores = judged({name: true[name] * mirror for name in ("keypoints", "vertices")}, true)
    assert scores.values["pa_mpjpe"] < 1e-3
    assert scores.details["reflected_share"] == 1.0
    assert "100.0% of the hands were aligned by a mirror image" in caplog.text
    assert "mirror image" in scores.parts[0].note


def test_answers_that_cannot_be_judged_are_refused():
    given, true = golden()
    with pytest.raises(UsageError, match=r"gives camera and shape, but .* Export the model again without --returns"):
        judged({"camera": given["keypoints"], "shape": given["keypoints"]}, true)
    given["vertices"] = given["vertices"].clone()
    given["vertices"][4, 100, 2] = torch.inf
    with pytest.raises(NonFiniteError, match="answer to sample 4"):
        judged(given, true)
    with pytest.raises(DatasetError, match="no hand to judge"):
        HandMetric(ModelCard(architecture="x", task="hand"), num_examples=0).compute()


def test_the_best_and_the_worst_hands_are_examples_with_the_true_mesh():
    given, true = golden()
    answers = {name: given[name] - given["keypoints"][:, :1] for name in given}
    answers |= {"camera": torch.tensor([[3.0, 0.0, 0.0]]).expand(len(given["vertices"]), 3)}
    card = ModelCard(architecture="x", task="hand", preprocessing=Preprocessing(image_size=(128, 128)))
    metric = HandMetric(card, num_examples=2, assets=generated_hand())
    for chosen in (slice(0, 3), slice(3, None)):
        metric.update(rows(answers, chosen), batch_of(rows(true, chosen), chosen.start))
    errors_mm = [example.said for example in metric.compute().examples]
    per_hand = 1000 * aligned_errors(*(Points(*(e[n].numpy() for n in given)) for e in (given, true))).errors.vertices
    order = np.argsort(-per_hand)
    assert [example.sample for example in metric.compute().examples] == [*order[:2], *order[:-3:-1]]
    assert errors_mm[0] == f"PA-MPVPE {per_hand.max():.1f} mm"
    example = metric.compute().examples[0]
    np.testing.assert_allclose(
        example.result.truth, (true["vertices"] - true["keypoints"][:, :1])[order[0]].numpy(), atol=1e-7
    )
    assert example.result.in_row
    assert "PA-MPJPE" in example.note


# ---- submissions


@pytest.mark.parametrize("name", ["pred.json", "pred.zip"])
def test_a_submission_has_all_hands_in_the_order_of_their_pictures(tmp_path, name):
    keypoints, vertices = cloud(1, 21, 3), cloud(2, 778, 3)
    submission = Submission(3)
    submission.add([2, 0], keypoints[[2, 0]], vertices[[2, 0]])
    with pytest.raises(UsageError, match=r"1 of 3 pictures have no hand \(00000001.jpg\)"):
        submission.write(tmp_path / name)
    submission.add([1], keypoints[[1]], vertices[[1]])
    submission.write(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    if name.endswith(".zip"):
        with zipfile.ZipFile(tmp_path / name) as archive:
            assert archive.namelist() == ["pred.json"]
            text = archive.read("pred.json").decode()
    else:
        text = (tmp_path / name).read_text(encoding="utf-8")
    xyz, verts = json.loads(text)
    np.testing.assert_allclose(xyz, keypoints, rtol=0, atol=6e-8)
    np.testing.assert_allclose(verts, vertices, rtol=0, atol=6e-8)


def test_a_submission_is_json_or_zip(tmp_path):
    with pytest.raises(UsageError, match=r"neither in \.zip nor in \.json"):
        Submission(0).write(tmp_path / "pred.txt")
