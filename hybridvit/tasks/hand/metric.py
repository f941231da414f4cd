"""How far hands are from the true ones, by FreiHAND's official measures, exact on any number of processes."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from hybridvit.batch import Batch
from hybridvit.card import ModelCard
from hybridvit.errors import DatasetError, NonFiniteError, UsageError
from hybridvit.evaluate.agreement import arrays
from hybridvit.evaluate.run import of_all_ranks
from hybridvit.report.content import Table
from hybridvit.scores import Example, Scores, first_of_groups
from hybridvit.task import Metric, Outputs
from hybridvit.tasks.hand.freihand.camera import root_position
from hybridvit.tasks.hand.freihand.mesh_errors import Errors, Points, aligned_errors, errors
from hybridvit.tasks.hand.mano.hand_assets import HandAssets
from hybridvit.tasks.hand.result import results_of

logger = logging.getLogger(__name__)

KEYPOINTS, VERTICES, CAMERA = "keypoints", "vertices", "camera"  # outputs, and keys of a target
MOST_REFLECTED = 0.01  # share of hands above which a warning is given
WORST, BEST = "Largest error of the mesh first", "Smallest error of the mesh first"
_MM = 1000.0


class HandMetric(Metric):
    """Errors after alignment, and where the model says how the camera sees the hand, also of the hand in its place.

    The examples are the hands with the largest and the smallest error of the mesh after alignment, drawn as meshes of
    `assets`; none without these. `mean` is a hand (a batch of one) whose errors stand beside, as what a model has to
    be better than.
    """

    def __init__(
        self,
        card: ModelCard,
        *,
        num_examples: int,
        assets: HandAssets | None = None,
        mean: Points | None = None,
    ) -> None:
        self._card, self._assets, self._num_examples, self._mean = card, assets, num_examples, mean
        self._of_mean: list[Errors] = []
        self._aligned: list[Errors] = []
        self._placed: list[Errors] = []
        self._reflected: list[np.ndarray] = []
        self._examples: list[Example] = []

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Raises UsageError for outputs without a mesh, NonFiniteError for points that are not finite."""
        check_given(outputs, (VERTICES, KEYPOINTS), "what hands are worth is computed from their")
        given, true = arrays(outputs), arrays(batch.targets)
        found, truth = Points(given[KEYPOINTS], given[VERTICES]), Points(true[KEYPOINTS], true[VERTICES])
        for points in (*found, *([given[CAMERA]] if CAMERA in given else ())):
            if not np.isfinite(points).all():
                number = int(batch.samples[int(np.argwhere(~np.isfinite(points))[0, 0])])
                raise NonFiniteError(
                    f"The answer to sample {number} has numbers that are not finite. Train with a lower optim.lr, or "
                    "export in a precision with a larger range."
                )
        judged = aligned_errors(found, truth)
        self._aligned.append(judged.errors)
        self._reflected.append(judged.reflected)
        if self._mean is not None:
            constant = Points(*map(np.broadcast_to, self._mean, [each.shape for each in truth]))
            self._of_mean.append(aligned_errors(constant, truth).errors)
        height, width = batch.inputs.shape[2:]
        if CAMERA in given:
            self._placed.append(errors(placed(found, given[CAMERA], true[CAMERA], (height, width)), truth))
        if self._num_examples and self._assets is not None:
            examples = self._examined(given, truth, judged.errors, batch, self._assets)
            self._examples = first_of_groups([*self._examples, *examples], (WORST, BEST), self._num_examples)

    def compute(self) -> Scores:
        """Raises DatasetError where there was no hand."""
        own = _joined(self._aligned)
        reflected = np.concatenate([np.empty(0, bool), *self._reflected])
        shares = of_all_ranks((own, _joined(self._placed), reflected, self._examples, _joined(self._of_mean)))
        aligned, in_place = _means([share[0] for share in shares]), _means([share[1] for share in shares])
        mean = _means([share[4] for share in shares])
        if aligned is None:
            raise DatasetError("There is no hand to judge. Run `hybridvit check-data` on the folder.")
        share = float(np.concatenate([share[2] for share in shares]).mean())
        if share > MOST_REFLECTED:
            logger.warning("%s", _warning(share))
        return Scores(
            values={
                "pa_mpjpe": _MM * aligned["keypoints"],
                "pa_mpvpe": _MM * aligned["vertices"],
                "f5": aligned["f5"],
                "f15": aligned["f15"],
                "auc_keypoints": aligned["keypoints_auc"],
                "auc_vertices": aligned["vertices_auc"],
            },
            parts=(summary(aligned, in_place, share, mean),),
            per_image=_MM * own.keypoints,
            examples=tuple(
                first_of_groups((each for share in shares for each in share[3]), (WORST, BEST), self._num_examples)
            ),
            details={"aligned": aligned, "unaligned": in_place, "mean_hand": mean, "reflected_share": share},
        )

    def _examined(
        self, given: Mapping[str, np.ndarray], truth: Points, found: Errors, batch: Batch, assets: HandAssets
    ) -> Iterable[Example]:
        """Each hand as an example of both groups, with the true one as an outline."""
        frames = batch.frames or (None,) * len(batch.samples)
        results = results_of(given, frames, self._card, assets)
        relative = truth.vertices - truth.keypoints[:, :1]
        for place, (number, result) in enumerate(zip(batch.samples.tolist(), results, strict=True)):
            error_mm = _MM * float(found.vertices[place])
            shown = replace(result, truth=relative[place], in_row=True)
            for group, order in ((WORST, error_mm), (BEST, -error_mm)):
                yield Example(
                    group=group,
                    order=order,
                    sample=number,
                    result=shown,
                    said=f"PA-MPVPE {error_mm:.1f} mm",
                    note=f"PA-MPJPE {_MM * found.keypoints[place]:.1f} mm, F@5 {found.f5[place]:.3f}",
                    right=group == BEST,
                )


def check_given(outputs: Outputs, names: Sequence[str], why: str) -> None:
    """Raises UsageError where an output is missing; `why` leads to their names in the message."""
    if any(name not in outputs for name in names):
        raise UsageError(
            f"The file gives {' and '.join(outputs)}, but {why} {' and '.join(names)}. Export the model again without "
            "--returns."
        )


def summary(
    aligned: Mapping[str, float],
    in_place: Mapping[str, float] | None,
    reflected: float,
    mean: Mapping[str, float] | None = None,
) -> Table:
    """The official script's numbers, lengths in millimetres."""
    rows = []
    for name, title in (
        ("keypoints", "Keypoints, mean error in mm"),
        ("keypoints_auc", "Keypoints, AUC"),
        ("vertices", "Vertices, mean error in mm"),
        ("vertices_auc", "Vertices, AUC"),
        ("f5", "F-score at 5 mm"),
        ("f15", "F-score at 15 mm"),
    ):
        is_length = name in ("keypoints", "vertices")
        cells = ["–" if each is None else _text(each[name], is_length) for each in (aligned, in_place, mean)]
        rows.append([title, *cells])
    note = "Unaligned hands lie where weak perspective and the camera of the picture put them." if in_place else ""
    told = "The mean hand is that of the training samples, the same for every picture." if mean else ""
    warning = _warning(reflected) if reflected > MOST_REFLECTED else ""
    return Table(
        title="Errors as FreiHAND's script has them",
        head=["", "Aligned", "Unaligned", "Mean hand, aligned"],
        rows=rows,
        note=" ".join(each for each in (note, told, warning) if each),
    )


def _warning(reflected: float) -> str:
    return (
        f"{reflected:.1%} of the hands were aligned by a mirror image, which the official measures allow: a left hand "
        "for a right one has no error by them. Look at the examples."
    )


def _text(value: float, is_length: bool) -> str:
    return f"{_MM * value:.2f}" if is_length else f"{value:.3f}"


def placed(found: Points, weak: np.ndarray, cameras: np.ndarray, size: tuple[int, int]) -> Points:
    """Root-relative hands where the cameras (b 3 3) of their crops of that height and width see them.

    `weak` (b 3) is the model's "camera"; see `root_position`.
    """
    roots = np.stack([root_position(one, camera, size) for one, camera in zip(weak, cameras, strict=True)])[:, None]
    return Points(found.keypoints + roots, found.vertices + roots)


def _joined(parts: list[Errors]) -> Errors:
    """The hands of several batches, of which there may be none."""
    places = range(len(Errors._fields))
    return Errors(*(np.concatenate([np.empty(0), *(part[place] for part in parts)]) for place in places))


def _means(parts: list[Errors]) -> dict[str, float] | None:
    """Over the hands of all processes; None where there is none."""
    joined = _joined(parts)
    return {name: float(values.mean()) for name, values in joined._asdict().items()} if len(joined.f5) else None
