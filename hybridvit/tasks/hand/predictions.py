"""Answers to the pictures of FreiHAND, as its evaluation takes them."""

from pathlib import Path

import numpy as np

from hybridvit.batch import Batch
from hybridvit.data.samples import Samples
from hybridvit.evaluate.agreement import arrays
from hybridvit.task import Outputs, Predictions
from hybridvit.tasks.hand.freihand.mesh_errors import Points
from hybridvit.tasks.hand.freihand.submission import Submission, check_ending
from hybridvit.tasks.hand.metric import CAMERA, KEYPOINTS, VERTICES, check_given, placed


class HandPredictions(Predictions):
    """The hands where the camera of each picture sees them."""

    def __init__(self, samples: Samples, path: Path) -> None:
        check_ending(path)
        self._path = path
        self._submission = Submission(len(samples.paths))

    def update(self, outputs: Outputs, batch: Batch) -> None:
        check_given(outputs, (VERTICES, KEYPOINTS, CAMERA), "hands are written where a camera sees them, by their")
        given, true = arrays(outputs), arrays(batch.targets)
        height, width = batch.inputs.shape[2:]
        found = Points(given[KEYPOINTS], given[VERTICES])
        hands = placed(found, given[CAMERA], true[CAMERA], (height, width))
        self._submission.add(batch.samples.tolist(), np.asarray(hands.keypoints), np.asarray(hands.vertices))

    def write(self) -> None:
        self._submission.write(self._path)
