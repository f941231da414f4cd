"""`hybridvit predict`: what is on these images?"""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from json import dumps

from hybridvit.answers.run import Answering, answered
from hybridvit.answers.sink import row_of
from hybridvit.cli.progress import status_line
from hybridvit.data.inputs import Input, Shown, is_camera, is_moving
from hybridvit.errors import ImageDecodeError
from hybridvit.loading import Device
from hybridvit.predictor import Answer
from hybridvit.stderr import remark
from hybridvit.task import NO_OPTIONS, TaskOptions

PLAIN = Answering()
_SHOWN_EVERY_S = 0.2


def predict(
    checkpoint: str,
    images: list[str],
    *,
    options: Answering = PLAIN,
    json: bool = False,
    threads: int | None = None,
    device: Device = "auto",
    trust_changed: bool = False,
    said: TaskOptions = NO_OPTIONS,
) -> int:
    """Name what is on images and videos.

    Takes a checkpoint (.safetensors, .pth) or any file that `hybridvit export` wrote; class names and preprocessing are
    inside it. An image that cannot be decoded is reported and the others go on; the exit code is then 3.

    Examples:
      hybridvit predict runs/digits/model.safetensors runs/data/digits/test/7
      hybridvit predict model.onnx photo.jpg https://example.com/another.jpg
      hybridvit predict model.onnx 'photos/**/*.png' --json > answers.jsonl
      hybridvit predict model.onnx photos --pictures drawn --output answers.parquet
      hybridvit predict model.onnx street.mp4 --every 5 --pictures drawn
      hybridvit predict model.onnx camera:0 --json
      hybridvit predict model.safetensors aerial.tif --tile 1024 --pictures drawn
      hybridvit predict mobileclip_s0.pt photos --embeddings photos.npy
      hybridvit predict mobileclip_s0.pt photo.jpg --zero_shot texts.safetensors
      hybridvit predict model.safetensors hand.jpg --side left --boxes 40,30,120,150 --pictures drawn

    Args:
        checkpoint: the model: .safetensors, .pth, .pth.tar, .ckpt, or an exported .onnx, .xml, .pte, .tflite ...;
            hf://OWNER/NAME is one on the Hugging Face hub, here and in the other commands.
        images: image and video files, folders (searched to any depth), patterns in quotes, http(s) addresses of
            pictures, cameras (camera:0).
        json: one JSON object per image and line, with "image" and the answer ("predictions" of classes), or "error"; of
            a video also "frame" and "seconds".
        threads: CPU threads; by default the runtime decides.
        device: where PyTorch computes; auto takes a GPU if there is one. Exported models run on the CPU.
        trust_changed: take an exported file that was changed on purpose (simplified, converted to fp16).
    """
    written = options.output or options.embeddings
    prints = json or written is None
    failed: set[Input] = set()
    count = 0
    with answered(
        checkpoint, images, options, device=device, threads=threads, trust_changed=trust_changed, said=said, say=remark
    ) as (answers, inputs):
        is_seen = prints and sys.stdout.isatty()  # a line of status would be torn by what is printed
        with nullcontext(lambda text: None) if is_seen else status_line() as show:
            progress = Progress(show, inputs)
            try:
                for answer in answers:
                    count += 1
                    if isinstance(answer.result, ImageDecodeError):
                        failed.add(answer.shown.source)
                    if prints or isinstance(answer.result, ImageDecodeError):
                        _print(answer, json)
                    progress(answer.shown)
            except KeyboardInterrupt:
                if not any(map(is_camera, inputs)):
                    raise
    if written is not None:
        remark(f"{count:,} {'answers' if options.embeddings is None else 'embeddings'} in {written}")
    if failed:
        what = "images could not be decoded" if _are_pictures(inputs) else "inputs could not be read whole"
        print(f"{len(failed)} of {len(inputs)} {what}.", file=sys.stderr)
    return ImageDecodeError.exit_code if failed else 0


def _print(answer: Answer, json: bool) -> None:
    if json:
        print(dumps(row_of(answer), ensure_ascii=False), flush=answer.shown.frame is not None)  # those of a camera now
    elif isinstance(answer.result, ImageDecodeError):
        print(f"Error: {answer.result}", file=sys.stderr)
    else:
        print("\n".join([str(answer.shown.where), *answer.result.lines()]))


def _are_pictures(inputs: Sequence[Input]) -> bool:
    return not any(isinstance(each, str) or is_moving(each) for each in inputs)


class Progress:
    """What is being answered, of how many, and how fast; no more often than one can read."""

    def __init__(self, show: Callable[[str], None], inputs: Sequence[Input]) -> None:
        self._show = show
        self._places = {each: f"{place} of {len(inputs)}: {each}" for place, each in enumerate(inputs, start=1)}
        self._began, self._last, self._count = time.monotonic(), 0.0, 0

    def __call__(self, shown: Shown) -> None:
        self._count += 1
        now = time.monotonic()
        if now - self._last < _SHOWN_EVERY_S:
            return
        self._last = now
        frame = "" if shown.frame is None else f", {shown.seconds:.1f} s"
        whole = shown.footage.seconds if shown.footage is not None else None
        if whole is not None:
            frame += f" of {whole:.1f} s"
        speed = self._count / max(now - self._began, 1e-9)
        self._show(f"{self._places[shown.source]}{frame}, {speed:.1f} images/s")
