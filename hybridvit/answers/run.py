"""A model and what to show it in, a stream of answers out, of which those who were asked for take their part."""

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from hybridvit.answers.embeddings import check_embeddings_file, embeddings_at
from hybridvit.answers.gallery import Gallery, check_gallery
from hybridvit.answers.sink import Sink
from hybridvit.answers.table import table_at
from hybridvit.data.inputs import FrameTaking, Input, find_inputs, is_moving, pictures
from hybridvit.data.scan import Say, check_text, quiet
from hybridvit.data.tiles import tiling_of
from hybridvit.errors import UsageError
from hybridvit.loading import Device
from hybridvit.machine.facts import usable_cores
from hybridvit.predictor import Answer, Predictor
from hybridvit.task import NO_OPTIONS, TaskOptions

MOST_WORKERS = 16  # threads that answer pictures side by side


@dataclass(frozen=True, kw_only=True)
class Answering:
    """How pictures are answered, and what is written. Raises UsageError for numbers out of their range."""

    top: int | None = None
    """answers per image, the most probable first; by default 5, or what the file gives if that is less, and of several
    labels those above 50 %."""
    batch: int | None = None
    """images computed at once; by default what is fastest: with PyTorch 16, with ONNX Runtime 1 of 256 px and more of
    smaller ones. With --tile, tiles of an image, 1 by default."""
    tile: int | None = None
    """cut larger images into overlapping tiles with a side of so many pixels, and join the answers."""
    overlap: float | None = None
    """the least part of a tile that its neighbour shows too; 0.2 by default."""
    every: int = 1
    """of videos and cameras, show the model the first and every Nth frame after it."""
    frames: int | None = None
    """at most so many frames of each video or camera; a camera goes on until Ctrl-C without it."""
    pictures: Path | None = None
    """folder to write NAME.png to, with the answer drawn on it, or NAME.mp4 of a video; and what else an answer has."""
    output: Path | None = None
    """file to write the answers to: .parquet for data frames, or .jsonl."""
    embeddings: Path | None = None
    """of an image tower such as fastvit_mci0, write the embedding of each picture, a vector of length 1, to this file:
    .safetensors, .npy, .parquet or .jsonl."""
    zero_shot: Path | None = None
    """of an image tower, name the classes whose texts a .safetensors file has: docs/mci.md has the way to write one."""

    def check_embeddings(self) -> None:
        """Raise UsageError for what does not go with embeddings, or a file that they cannot be written to."""
        if self.embeddings is None:
            return
        others = {name: getattr(self, name) for name in ("top", "tile", "overlap", "pictures", "output", "zero_shot")}
        if given := [name for name, value in others.items() if value is not None]:
            raise UsageError(
                f"--{given[0]} does not go with --embeddings, of which an answer is a vector and nothing else. Leave "
                "one of them out."
            )
        check_embeddings_file(self.embeddings)


@contextmanager
def answered(
    model: str | os.PathLike[str],
    images: Sequence[str | os.PathLike[str]],
    options: Answering,
    *,
    device: Device = "auto",
    threads: int | None = None,
    trust_changed: bool = False,
    said: TaskOptions = NO_OPTIONS,
    say: Say = quiet,
) -> Iterator[tuple[Iterator[Answer], list[Input]]]:
    """The answers, and the inputs that they are to.

    What is asked for is written when the context is left, and files are in their place only if it is left without an
    exception. Raises before any work what `Answering.check_embeddings`, `find_inputs`, `check_gallery`, `table_at`,
    `Tiling` and `Predictor` raise.
    """
    options.check_embeddings()
    tiling = tiling_of(options.tile, options.overlap)
    taking = FrameTaking(every=options.every, most=options.frames)
    inputs = find_inputs(images, say=say)
    taking.check(inputs)
    if options.output is not None or options.embeddings is not None:
        check_text(inputs)
    sinks: list[Sink] = [] if options.output is None else [table_at(options.output)]
    if options.pictures is not None:
        check_gallery(options.pictures, inputs)
    predictor = Predictor(
        model,
        device=device,
        threads=threads,
        trust_changed=trust_changed,
        tiling=tiling,
        said=said,
        zero_shot=options.zero_shot,
        embeddings=options.embeddings is not None,
        workers=_workers_for(inputs),
    )
    predictor.check_answers()
    if options.embeddings is not None:
        sinks.append(embeddings_at(options.embeddings, predictor))
    if options.pictures is not None:
        sinks.append(Gallery(options.pictures, inputs, predictor))
    keeps = options.pictures is not None
    answers = predictor.stream(pictures(inputs, taking), batch=options.batch, most=options.top, keeps=keeps)
    with ExitStack() as stack, closing(_taken(answers, [stack.enter_context(sink) for sink in sinks])) as taken:
        yield taken, inputs


def _workers_for(inputs: Sequence[Input]) -> int:
    """As many as there are cores, unless there is less to do; not too many for what large inputs take of memory."""
    num_pictures = MOST_WORKERS if any(map(is_moving, inputs)) else len(inputs)
    return max(1, min(MOST_WORKERS, usable_cores(), num_pictures))


def _taken(answers: Generator[Answer, None, None], sinks: Sequence[Sink]) -> Generator[Answer, None, None]:
    with closing(answers):
        for answer in answers:
            for sink in sinks:
                sink.take(answer)
            yield answer
