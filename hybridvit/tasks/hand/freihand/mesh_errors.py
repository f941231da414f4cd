"""What FreiHAND's evaluation computes of one hand: distances, the area under PCK, and F-scores. All in metres."""

from typing import NamedTuple

import numpy as np
import torch

from hybridvit.tasks.hand.freihand.alignment import aligned

THRESHOLDS = np.linspace(0.0, 0.05, 100)  # of PCK, the share of points that are not farther off
F_THRESHOLDS = (0.005, 0.015)
_UNDER_PCK = np.array([1.0, *((np.arange(98.0, -1.0, -1.0) + 0.5) / 99), 0.0])
"""The area under the PCK curve of one point, by the first threshold that its distance does not exceed: by trapezoids,
over that of a curve which is always 1. PCK curves of several points are the means of theirs, and so are the areas."""


class Points(NamedTuple):
    """Hands of a batch, in metres."""

    keypoints: np.ndarray  # b 21 3
    vertices: np.ndarray  # b v 3


class Errors(NamedTuple):
    """Of each hand of a batch (b, float64); the mean over hands is what the official script prints."""

    keypoints: np.ndarray  # m, the mean over the keypoints
    keypoints_auc: np.ndarray  # 0 to 1
    vertices: np.ndarray  # m
    vertices_auc: np.ndarray
    f5: np.ndarray  # 0 to 1: at 5 mm
    f15: np.ndarray


class Judged(NamedTuple):
    """Errors after alignment, and whether one needed a mirror image."""

    errors: Errors
    reflected: np.ndarray  # b, bool


def errors(given: Points, truth: Points) -> Errors:
    """Errors of hands as they lie."""
    of_keypoints, of_vertices = (
        np.linalg.norm(one.astype(np.float64) - other.astype(np.float64), axis=2)
        for one, other in zip(given, truth, strict=True)
    )
    scores = [f_scores(one, other) for one, other in zip(given.vertices, truth.vertices, strict=True)]
    f5, f15 = np.array(scores, np.float64).reshape(-1, len(F_THRESHOLDS)).T
    return Errors(of_keypoints.mean(1), _auc(of_keypoints), of_vertices.mean(1), _auc(of_vertices), f5, f15)


def aligned_errors(given: Points, truth: Points) -> Judged:
    """The same after keypoints and vertices are aligned, each by their own points. Raises ValueError as `aligned`."""
    keypoints, vertices = (aligned(one, other) for one, other in zip(given, truth, strict=True))
    found = errors(Points(keypoints.points, vertices.points), truth)
    return Judged(found, keypoints.reflected | vertices.reflected)


def f_scores(vertices: np.ndarray, truth: np.ndarray) -> tuple[float, ...]:
    """2 PR / (P + R) of two clouds of points (n 3, m 3) at F_THRESHOLDS, 0 where both are 0.

    P and R are the shares of the points of the one whose nearest point of the other is nearer than the threshold.
    """
    one, other = (torch.from_numpy(each.astype(np.float64)) for each in (vertices, truth))
    middle = other.mean(0)
    one, other = one - middle, other - middle  # small numbers, so that the differences below keep their digits
    squares = torch.addmm(other.square().sum(1)[None], one, other.T, alpha=-2).add_(one.square().sum(1)[:, None])
    nearest = squares.amin(1), squares.amin(0)
    scores = []
    for threshold in F_THRESHOLDS:
        precision, recall = ((each < threshold**2).double().mean().item() for each in nearest)
        scores.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return tuple(scores)


def _auc(distances: np.ndarray) -> np.ndarray:
    """The area under PCK (b) of distances in metres (b points)."""
    return _UNDER_PCK[np.searchsorted(THRESHOLDS, distances)].mean(1)
