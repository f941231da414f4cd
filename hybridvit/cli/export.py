"""`hybridvit export`: files for other runtimes, proven equal."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridvit.atomic import check_writable
from hybridvit.cli.size import Size
from hybridvit.cli.table import pairs
from hybridvit.errors import HybridViTError, UsageError, command_line
from hybridvit.export.apart import ExportJob, run_apart
from hybridvit.export.options import Batch, ExportOptions
from hybridvit.export.spec import Precision
from hybridvit.export.targets import exporter_for
from hybridvit.hub import hub_place, local_file
from hybridvit.loading import is_exported
from hybridvit.stderr import remark

if TYPE_CHECKING:
    from hybridvit.export.pipeline import ExportReport
    from hybridvit.export.quantise.quality import Quality

MOST_IMAGES = 64  # that outputs are compared on; more would take time and prove nothing new


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked for: `ExportOptions` in the words of the command line, the targets, and what is compared."""

    to: Sequence[str] = ("onnx",)
    """one or more targets."""
    precision: Precision = "fp32"
    """of the numbers inside, fp32, fp16, bf16 or int8; not every target has each."""
    output: str | None = None
    """file to write, or the folder for several targets; by default beside the checkpoint."""
    batch: str | None = None
    """images per call, or dynamic; by default dynamic where the target takes it well, else 1."""
    image_size: Size | None = None
    """height x width in pixels that the file will take: 256, or 192x320; by default the checkpoint's own."""
    image_sizes: Sequence[Size] = ()
    """several sizes in one file (coreml)."""
    dynamic_size: bool = False
    """let the file take any height and width from 32 to 2048 px, for a FasterViT from where it has more than one window
    (113 px); image_size is then only what `predict` resizes to."""
    uint8: bool = False
    """take pixels as they are decoded (batch x height x width x channels); the normalisation is inside."""
    returns: str | None = None
    """what the file gives: by default what the model answers (logits, segmentation, detections, hand; of an image tower
    embeddings), or of hands parameters (all but the mesh), or features (the pooled vector before the classifier), map
    (the last map) or pyramid (the feature maps)."""
    top_k: int | None = None
    """give the probabilities and indices of so many classes instead of all logits."""
    argmax: bool = False
    """of a segmentation give the class of each pixel (uint8 up to 256 classes, else int32) instead of all logits."""
    opset: int | None = None
    """onnx: the opset of its operators, 17 to 25, for older runtimes and readers; by default 20."""
    images: Sequence[str] = ()
    """images, folders or patterns to compare on besides random ones; the first 64 are used."""
    limit: float | None = None
    """largest difference from PyTorch, relative to the largest output; by default 1e-5 (fp32), 5e-3 (fp16), 5e-2
    (bf16). Of detectors that of a score or a mask's probability, by default ten times as much."""
    calibration: str | None = None
    """int8: a folder of class folders, or what else the task is evaluated on. Images from it set the range of every
    number inside, the others measure what the integers cost."""
    labelled: str | None = None
    """int8: another such folder that measures the cost, instead of what is left of the first."""
    calibration_images: int | None = None
    """int8: how many set the ranges, taken evenly over the classes; by default 128, or half of a smaller folder (all of
    it beside `labelled`)."""
    max_drop: float | None = None
    """int8: points of top-1 accuracy, or of what else the task is judged by, that may be lost; of the mean cosine of
    embeddings 0.01, if nothing is said. The layers that hurt most stay in floating point until it is met."""
    keep: Sequence[str] | None = None
    """int8: layers or blocks, by name or pattern, that stay in floating point."""
    zero_shot: str | None = None
    """of an image tower such as fastvit_mci0, a .safetensors file with the texts of classes (docs/mci.md): they become
    its head, and the file names these classes."""
    head_options: dict[str, Any] | None = None
    """other options of the model's head than it was trained with, such as '{"proposals": 300}': those that change no
    weights."""
    verbose: bool = False
    """show what the converters print."""

    def job(self, checkpoint: str) -> ExportJob:
        """What one process does, its target and output left open. Raises UsageError for what no target can have."""
        of_int8 = (self.calibration, self.labelled, self.calibration_images, self.max_drop, self.keep)
        if self.precision != "int8" and any(each is not None for each in of_int8):
            raise UsageError(
                "--calibration, --labelled, --calibration_images, --max_drop and --keep are for int8, but the "
                f"precision is {self.precision}. Use --precision int8, or leave them out."
            )
        given = vars(self) | {"batch": _batch(self.batch), "image_sizes": tuple(self.image_sizes)}
        options = ExportOptions(**{each.name: given[each.name] for each in fields(ExportOptions)})
        return ExportJob(
            checkpoint=checkpoint,
            output="",
            to="",
            options=options,
            images=_images(self.images),
            calibration=self.calibration,
            labelled=self.labelled,
            calibration_images=self.calibration_images,
            max_drop=self.max_drop,
            keep=tuple(self.keep or ()),
            zero_shot=self.zero_shot,
            head_options=self.head_options or {},
        )


DEFAULTS = Request()


def export(checkpoint: str, *, request: Request = DEFAULTS) -> int:
    """Write a checkpoint for other runtimes, and prove that it answers the same.

    The model is folded first. Each target converts and runs in a process of its own. The written file is run by its
    runtime on random images in batches of 1, 2 and 5, on drawn pictures, and on yours if you name some, and compared
    with PyTorch in fp32; it is kept only if no output differs by more than the limit. Class names, input size and
    preprocessing are inside: `hybridvit predict model.onnx photo.jpg` needs nothing else, not even torch.

    Targets: onnx (.onnx; ONNX Runtime, also in browsers), openvino (.xml and .bin; Intel and ARM CPUs), coreml
    (.mlpackage; Apple), coreai (.aimodel; Apple), executorch (.pte; phones, XNNPACK), litert (.tflite; Android,
    browsers), tensorrt (.engine; NVIDIA GPUs). docs/deploy.md shows a program for each.

    Examples:
      hybridvit export runs/digits/model.safetensors
      hybridvit export model.safetensors --to onnx openvino coreml --images runs/data/digits/test
      hybridvit export model.safetensors --to openvino --precision fp16
      hybridvit export model.safetensors --to openvino --precision int8 --calibration photos/val --max_drop 0.5
      hybridvit export fastervit_0.pth.tar --dynamic_size
      hybridvit export fastervit_0.pth.tar --opset 17 --batch 1
      hybridvit export mobileclip_s0.pt --zero_shot texts.safetensors --uint8 --top_k 5
      hybridvit export fastvit_sa12.pth.tar --image_size 192x320 --uint8 --top_k 5

    Args:
        checkpoint: .safetensors, .pth, .pth.tar or .ckpt, in any form.
    """
    from hybridvit.data.scan import tell_left_out

    if is_exported(checkpoint):
        raise UsageError(f"{checkpoint} is exported already. Give the weights it came from.")
    job = request.job(str(local_file(checkpoint)))
    targets = list(dict.fromkeys(request.to))
    place = hub_place(checkpoint)
    outputs = _outputs(Path(place.name if place else checkpoint), targets, request.precision, request.output)
    for target in targets:
        exporter = exporter_for(target)
        exporter.require(exporter.writer_packages)
    tell_left_out((job.calibration, job.labelled), remark)
    show = print if request.verbose else lambda _: None
    failed: HybridViTError | None = None
    for target, path in outputs.items():
        try:
            done = run_apart(replace(job, to=target, output=str(path)), show=show)
        except HybridViTError as error:
            if len(targets) == 1:
                raise
            print(f"Error: {error}\n", file=sys.stderr)
            failed = failed or error
        else:
            _print(done, last=path == list(outputs.values())[-1])
    return 0 if failed is None else failed.exit_code


def _outputs(checkpoint: Path, targets: list[str], precision: str, output: str | None) -> dict[str, Path]:
    """Where the file of each target goes. Raises UsageError for a place that is none, DiskFull if it takes no file."""
    suffixes = {target: exporter_for(target).suffix for target in targets}
    if output is not None and len(targets) == 1:
        paths = {targets[0]: Path(output)}
    else:
        folder = checkpoint.parent if output is None else Path(output)
        if output is not None and not folder.is_dir():
            raise UsageError(
                f"--output is {output}, but {len(targets)} targets need a folder that exists. Create it, or export "
                "them one by one."
            )
        stem = checkpoint.name.partition(".")[0] + ("" if precision == "fp32" else f"-{precision}")
        paths = {target: folder / f"{stem}{suffix}" for target, suffix in suffixes.items()}
    for target, path in paths.items():
        check_writable(path, is_folder=bool(exporter_for(target).record))
    return paths


def _batch(word: str | None) -> Batch:
    """A number of images, or "dynamic". Raises UsageError for another word."""
    if word is None:
        return None
    if word == "dynamic":
        return "dynamic"
    if not word.isdecimal() or int(word) < 1:
        raise UsageError(f"--batch is {word}, but must be a number of images from 1, or dynamic.")
    return int(word)


def _images(words: Sequence[str]) -> tuple[str, ...]:
    from hybridvit.data.scan import find_images

    return tuple(str(path) for path in find_images(words, say=remark)[:MOST_IMAGES]) if words else ()


def _quality(cost: "Quality") -> list[tuple[str, str]]:
    quantity, kept = cost.quantity, f"{len(cost.kept)} of {cost.num_layers} layers"
    after, before, everything = (quantity.text(value) for value in (cost.after, cost.before, cost.everything))
    lost, between = f"{cost.drop:.{quantity.decimals}f} {quantity.unit_of_losses}".rstrip(), ""
    if cost.drop_interval is not None:
        between = " (95 %: {:+.{digits}f} to {:+.{digits}f})".format(*cost.drop_interval, digits=quantity.decimals)
    return [
        (
            quantity.heading + (" accuracy" if quantity.title.startswith("top-") else ""),
            f"{after}; fp32 {before}, all layers int8 {everything}",
        ),
        ("  lost", f"{lost}{between} on {cost.num_images} images"),
        ("Same answer as fp32", f"{cost.same_answer:.2f} %"),
        ("In floating point", kept + (f": {', '.join(cost.kept)}" if cost.kept else "")),
        ("Hurt most by int8", ", ".join(f"{name} {change:.2f}" for name, change in cost.worst_layers[:5])),
    ]


def _print(done: "ExportReport", *, last: bool) -> None:
    spec, parity, checked = done.spec, done.parity, done.weights
    limit = "for int8 no limit: it knows photos, not noise" if parity.limit is None else f"limit {parity.limit:.0e}"
    rows = [
        ("Size", f"{done.size_bytes / 1e6:.2f} MB, {spec.precision}" + (f", opset {spec.opset}" if spec.opset else "")),
        ("Takes", spec.takes),
        ("Gives", spec.gives),
        ("Largest difference", f"{parity.found} ({limit})"),
        ("  by folding alone", f"{done.folding.max_error:.1e}"),
        *([("Cosine to PyTorch", "lowest {:.6f}, mean {:.6f}".format(*parity.cosines))] if parity.cosines else []),
        ("Compared on", parity.compared_on),
    ]
    if done.quality is not None:
        rows += _quality(done.quality)
    if done.notice:
        rows.append(("Note", done.notice))
    if checked is not None:
        weights = f"{checked.num_tensors} weights compared to {checked.max_error:.0e}"
        script = exporter_for(done.target).companions(done.path)[0].name
        rows += [
            ("Not run", f"{checked.reason}: computed from the written program, {weights}"),
            ("Still to do", f"{command_line('python', script)}, where such files run"),
        ]
    print(f"Exported {done.architecture}, folded, to {done.path}")
    print(pairs(rows) + ("" if last else "\n"))
