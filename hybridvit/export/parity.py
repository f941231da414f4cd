"""Compare an exported file with PyTorch on the same input."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from hybridvit.card import Preprocessing
from hybridvit.difference import OF_LARGEST, relative_error
from hybridvit.export.embeddings import EMBEDDINGS
from hybridvit.export.runners import ExportedRunner
from hybridvit.export.spec import GraphSpec
from hybridvit.task import Outputs, Task, find_task

if TYPE_CHECKING:
    from hybridvit.export.exporter import Exporter

BATCH_SIZES = (1, 2, 5)  # more than one, and not all even: a batch size baked into the graph cannot hide
NUM_PICTURES = 4  # drawn ones, per size

Reference = Callable[[np.ndarray], list[np.ndarray]]
"""What PyTorch computes in fp32 for a batch as the runner is given it: the outputs in order, logits for a top-k."""


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far an exported file is from PyTorch."""

    max_error: float  # the largest difference in a batch, over all of them
    counted_in: str  # what that is a number of, as words behind it
    limit: float | None  # None: int8, which is judged by its accuracy
    batch_sizes: tuple[int, ...]
    image_sizes: tuple[tuple[int, int], ...]  # height, width of the random images
    real_images: int
    num_same: int  # of the real images, how many have the same answer; all, where the file gives none
    cosines: tuple[float, float] | None = None  # of embeddings, to PyTorch's: the lowest, and the mean

    @property
    def passed(self) -> bool:
        """Within the limit, and NaN is not."""
        return math.isfinite(self.max_error) and (self.limit is None or self.max_error <= self.limit)

    @property
    def found(self) -> str:
        """The largest difference with its unit."""
        return f"{self.max_error:.1e} {self.counted_in}"

    @property
    def compared_on(self) -> str:
        """On what, in words."""
        sizes = ", ".join(f"{height}x{width}" for height, width in self.image_sizes)
        drawn = f"random batches of {', '.join(map(str, self.batch_sizes))} and drawn pictures at {sizes} px"
        real = f"; {self.real_images} images, same answer on {self.num_same}" if self.real_images else ""
        return drawn + real

    def to_dict(self) -> dict[str, object]:
        """Plain types for JSON."""
        return asdict(self)


def compare(
    runner: ExportedRunner,
    reference: Reference,
    *,
    image_sizes: Sequence[tuple[int, int]],
    images: Sequence[np.ndarray] = (),
    batch_sizes: Sequence[int] = BATCH_SIZES,
    limit: float | None,
    seed: int = 0,
) -> Parity:
    """Run both on noise of every batch size and image size (height, width), on drawn pictures, and on `images`.

    `images` (c, h, w) are preprocessed as the runner's card says.
    """
    generator, spec, worst = np.random.default_rng(seed), runner.spec, 0.0
    alike: list[np.ndarray] = []  # cosines of embeddings
    noise = (
        generator.normal(127.5, 60, (num, spec.channels, *size))
        for num, size in itertools.product(batch_sizes, image_sizes)
    )
    drawn = (pictures(NUM_PICTURES, spec.channels, size, generator) for size in image_sizes)
    for levels in itertools.chain(noise, drawn):
        batch = _as_given(spec, levels, runner)
        outputs, expected = runner(batch), reference(batch)
        worst = max(worst, _error(runner, outputs, expected))
        alike += _alike(spec, outputs, expected)
    num_same = 0
    for batch in batches(images, max(batch_sizes)):
        expected = reference(batch)
        outputs = runner(batch)
        worst = max(worst, _error(runner, outputs, expected))
        alike += _alike(spec, outputs, expected)
        num_same += _num_same(runner, outputs, expected)
    return Parity(
        max_error=worst,
        counted_in=counted_in(find_task(runner.card.task), spec),
        limit=limit,
        batch_sizes=tuple(batch_sizes),
        image_sizes=tuple(image_sizes),
        real_images=len(images),
        num_same=num_same,
        cosines=_lowest_and_mean(np.concatenate(alike)) if alike else None,
    )


def cosines(given: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Of each row (n, d) to the other's."""
    one, other = given.astype(np.float64), wanted.astype(np.float64)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return (one * other).sum(1) / np.maximum(lengths, np.finfo(np.float64).tiny)


def _alike(spec: GraphSpec, outputs: Outputs, expected: list[np.ndarray]) -> list[np.ndarray]:
    return [cosines(outputs[EMBEDDINGS], expected[0])] if spec.returns == EMBEDDINGS else []


def _lowest_and_mean(values: np.ndarray) -> tuple[float, float]:
    return float(values.min()), float(values.mean())


def batches(images: Sequence[np.ndarray], most: int) -> Iterator[np.ndarray]:
    """The images (c, h, w) in their order, up to `most` of one size at a time."""
    for _, same in itertools.groupby(images, key=np.shape):
        group = list(same)
        yield from (np.stack(group[start : start + most]) for start in range(0, len(group), most))


def pictures(num: int, channels: int, size: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    """Drawn pictures, 0 to 255: a slope of brightness with rectangles on it, some black or white.

    Unlike noise they have flat areas, edges and extremes, which excite other numbers inside a network.
    """
    height, width = size
    slope = np.linspace(0, 1, height)[:, None] * generator.uniform(-1, 1, (num, channels, 1, 1))
    drawn = 127.5 + 127.5 * (slope + np.linspace(0, 1, width) * generator.uniform(-1, 1, (num, channels, 1, 1))) / 2
    for picture in drawn:
        for level in (0.0, 255.0, *generator.uniform(0, 255, 4)):
            top, left = generator.integers(0, height), generator.integers(0, width)
            picture[:, top : top + height // 3, left : left + width // 3] = level
    return np.rint(drawn).clip(0, 255)


def _as_given(spec: GraphSpec, levels: np.ndarray, runner: ExportedRunner) -> np.ndarray:
    """Levels from 0 to 255 as the runner takes them; noise may leave that range unless pixels are bytes."""
    if spec.pixels == "uint8":
        return np.rint(levels).clip(0, 255).astype(np.float32)
    return normalised(levels, runner.card.preprocessing)


def normalised(levels: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Levels from 0 to 255 (n, c, h, w) as `preprocessing` says; float32."""
    mean, std = (np.asarray(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    return ((levels / 255 - mean) / std).astype(np.float32)


def _num_same(runner: ExportedRunner, outputs: Mapping[str, np.ndarray], expected: list[np.ndarray]) -> int:
    """On how many pictures both give the same answer, as a person would say."""
    if not runner.spec.gives_answers:
        return len(expected[0])
    task, frames = find_task(runner.card.task), (None,) * len(expected[0])
    wanted = task.results(dict(zip(runner.spec.answers, expected, strict=True)), frames, runner.card)
    given = task.results(outputs, frames, runner.card)
    return sum(one.agrees(other) for one, other in zip(given, wanted, strict=True))


def _error(runner: ExportedRunner, outputs: Mapping[str, np.ndarray], expected: list[np.ndarray]) -> float:
    spec = runner.spec
    if spec.top_k is not None:
        return _top_k_error(outputs, expected[0])
    if spec.argmax:
        return _argmax_error(outputs[spec.argmax], expected[0])
    return difference(find_task(runner.card.task), spec, outputs, dict(zip(spec.outputs, expected, strict=True)))


def difference(task: Task, spec: GraphSpec, given: Outputs, wanted: Outputs) -> float:
    """How far two answers, or two sets of feature maps, are apart."""
    if spec.gives_answers:
        return task.difference(given, wanted)
    return max(relative_error(given[name], each) for name, each in wanted.items())


def counted_in(task: Task, spec: GraphSpec) -> str:
    """What a `difference` counts in, as words behind the number."""
    return task.counted_in if spec.gives_answers else OF_LARGEST


def limit_of(exporter: "Exporter", task: Task, spec: GraphSpec) -> float | None:
    """How far they may be apart; None: int8, which is judged by its accuracy."""
    limit = exporter.limits.get(spec.precision)
    return limit if limit is None or not spec.gives_answers else limit * task.tolerance


def _argmax_error(labels: np.ndarray, logits: np.ndarray) -> float:
    """By how much the logits of the classes that were named are below the largest, in shares of the largest of all."""
    if labels.shape != (len(logits), *logits.shape[2:]) or labels.max(initial=0) >= logits.shape[1]:
        return math.inf
    named = np.take_along_axis(logits, labels[:, None].astype(np.int64), 1)
    return relative_error(named, logits.max(1, keepdims=True))


def _top_k_error(answer: Mapping[str, np.ndarray], logits: np.ndarray) -> float:
    """Both the probabilities of the classes that were named, and those of the classes that should have been."""
    powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    probabilities = powers / powers.sum(1, keepdims=True)
    given, indices = answer["probabilities"], answer["indices"].astype(np.int64)
    if indices.min() < 0 or indices.max() >= logits.shape[1]:
        return math.inf
    best = -np.sort(-probabilities, axis=1)[:, : given.shape[1]]
    named = np.take_along_axis(probabilities, indices, 1)
    return max(relative_error(given, best), relative_error(given, named))
