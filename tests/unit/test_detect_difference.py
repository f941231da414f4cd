"""How far two lists of detections are apart."""

import math

import numpy as np
import pytest

from hybridvit.task import find_task

TASK = find_task("detect")


def lists() -> dict[str, np.ndarray]:
    """One picture with three detections, the third of which fills no row, and one without any."""
    boxes, scores, labels = np.zeros((2, 3, 4), np.float32), np.zeros((2, 3), np.float32), np.zeros((2, 3), np.int64)
    boxes[0, :2] = [[2, 2, 30, 40], [10, 0, 60, 30]]
    scores[0, :2], labels[0, :2] = [0.9, 0.4], [1, 0]
    return {"boxes": boxes, "scores": scores, "labels": labels, "masks": np.zeros((2, 3, 28, 28), np.float32)}


def test_equal_lists_are_not_apart_in_whatever_order() -> None:
    wanted, given = lists(), lists()
    assert TASK.difference(given, wanted) == 0
    assert TASK.difference({name: values[:, [1, 0, 2]] for name, values in given.items()}, wanted) == 0


@pytest.mark.parametrize(
    ("name", "place", "value", "apart"),
    [
        ("scores", (0, 1), 0.4003, 0.0003),
        ("scores", (0, 1), 0.0, 0.4),  # it is missing
        ("scores", (1, 2), 0.2, 0.2),  # one too many, of no place
        ("labels", (0, 0), 2, 0.9),
        ("boxes", (0, 0, 2), 30.1, 0.0),  # an IoU of 0.996
        ("boxes", (0, 0, 2), 31.0, 0.9),
        ("masks", (0, 1, 3, 4), 0.25, 0.25),
        ("masks", (1, 1, 3, 4), 0.25, 0.0),  # of a row without a detection
        ("boxes", (1, 1, 1), math.nan, math.inf),
    ],
)
def test_lists_are_apart_by_what_one_has_and_the_other_lacks(
    name: str, place: tuple[int, ...], value: float, apart: float
) -> None:
    wanted, given = lists(), lists()
    given[name][place] = value
    assert TASK.difference(given, wanted) == pytest.approx(apart, abs=1e-6)
    assert TASK.difference(wanted, given) == pytest.approx(apart, abs=1e-6) or apart == math.inf


def test_the_last_rows_of_full_lists_count_by_how_far_they_are_above_the_end() -> None:
    wanted, given = lists(), lists()
    for each, label in ((wanted, 2), (given, 3)):
        each["scores"][0, 2], each["labels"][0, 2], each["boxes"][0, 2] = 0.1, label, [5, 5, 9, 9]
    given["scores"][0, 2] = 0.10001
    assert TASK.difference(given, wanted) == pytest.approx(1e-5, abs=1e-6)
