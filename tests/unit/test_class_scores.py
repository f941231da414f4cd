"""Precision, recall and F1 of every class are those of scikit-learn, for any number of classes."""

import json

import numpy as np
import pytest
import torch

from hybridvit.batch import Batch
from hybridvit.card import ModelCard
from hybridvit.report.by_class import MOST_ROWS
from hybridvit.report.content import Table
from hybridvit.scores import Scores
from hybridvit.tasks.classify.metric import ClassifyMetric


def judged(num_classes: int, labels: np.ndarray, answers: np.ndarray) -> Scores:
    card = ModelCard(architecture="fastvit_debug", class_names=tuple(f"c{number}" for number in range(num_classes)))
    metric = ClassifyMetric(card, num_examples=0)
    for part in np.array_split(np.arange(len(labels)), 3):
        logits = torch.nn.functional.one_hot(torch.from_numpy(answers[part]), num_classes).float()
        metric.update({"logits": logits}, Batch(logits, torch.from_numpy(labels[part]), torch.from_numpy(part)))
    return metric.compute()


@pytest.mark.parametrize("num_classes", [2, 7, 1500])
def test_every_class_has_the_scores_of_scikit_learn(num_classes: int) -> None:
    reference = pytest.importorskip("sklearn.metrics").precision_recall_fscore_support
    chance = np.random.default_rng(num_classes)
    labels, wrong = chance.integers(0, num_classes, (2, 600))
    answers = np.where(chance.random(600) < 0.6, labels, wrong)
    classes = judged(num_classes, labels, answers).details["classes"]
    assert [each["name"] for each in classes] == [f"c{number}" for number in range(num_classes)]
    expected = reference(labels, answers, labels=np.arange(num_classes), zero_division=np.nan)
    for key, values in zip(("precision", "recall", "f1"), expected[:3], strict=True):
        ours = np.array([np.nan if each[key] is None else each[key] for each in classes], float)
        np.testing.assert_allclose(ours, 100 * values, atol=1e-4, err_msg=key)
    assert [each["num_images"] for each in classes] == expected[3].tolist()
    json.dumps(classes, allow_nan=False)


def test_a_report_lists_the_worst_classes_first() -> None:
    labels = np.array([0, 0, 1, 1, 2])
    (table,) = (part for part in judged(4, labels, np.array([0, 0, 1, 0, 0])).parts if isinstance(part, Table))
    assert list(table.rows) == [
        ["c2", "–", "0.00 %", "0.00 %", "1"],
        ["c0", "50.00 %", "100.00 %", "66.67 %", "2"],
        ["c1", "100.00 %", "50.00 %", "66.67 %", "2"],
        ["c3", "–", "–", "–", "0"],
    ]
    assert table.note == ""
    many = judged(MOST_ROWS + 5, labels, labels).parts
    (table,) = (part for part in many if isinstance(part, Table))
    assert len(table.rows) == MOST_ROWS
    assert table.note.startswith(
        "And 5 classes with a higher F1, or without images; `hybridvit evaluate --json` has all."
    )
