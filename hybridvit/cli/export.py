"""`hybridvit export`: a file for another runtime, proven equal."""

from pathlib import Path
from typing import TYPE_CHECKING

from hybridvit.cli.size import parse_size
from hybridvit.cli.table import pairs
from hybridvit.errors import UsageError
from hybridvit.export.targets import exporter_for
from hybridvit.loading import is_exported

if TYPE_CHECKING:
    from hybridvit.export.parity import Parity

MOST_IMAGES = 64  # to compare with; more prove nothing new and take time


def export(
    checkpoint: str,
    *,
    to: str = "onnx",
    output: str | None = None,
    image_size: str | None = None,
    dynamic_size: bool = False,
    images: list[str] | None = None,
) -> None:
    """Write a checkpoint for another runtime, and prove that it answers the same.

    The model is folded first. The written file is run by its own runtime on random images in batches of 1, 2 and 5, and
    on yours if you name some, and compared with PyTorch; it is kept only if no output differs by more than 1e-5 of the
    largest. Class names, input size and preprocessing are inside: `hybridvit predict model.onnx photo.jpg` needs
    nothing else, not even torch.

    Examples:
      hybridvit export runs/digits/model.safetensors
      hybridvit export model.safetensors --to openvino --output digits.xml --images runs/data/digits/test
      hybridvit export fastervit_0.pth.tar --dynamic_size
      hybridvit export fastvit_sa12.pth.tar --image_size 192x320

    Args:
        checkpoint: .safetensors, .pth or .pth.tar, in any form.
        to: the target: onnx (one file) or openvino (an .xml and a .bin), any batch size, fp32.
        output: file to write; by default beside the checkpoint.
        image_size: height x width in pixels that the file will take: 256, or 192x320; by default the checkpoint's own.
        dynamic_size: let the file take any height and width from 32 to 2048 px, for a FasterViT from where it has more
            than one window (113 px); image_size is then only what `predict` resizes to.
        images: images, folders or patterns to compare on besides random ones; the first 64 are used.
    """
    if is_exported(checkpoint):
        raise UsageError(f"{checkpoint} is exported already. Give the weights it came from.")
    exporter = exporter_for(to)
    source = Path(checkpoint)
    target = Path(output) if output else source.with_name(source.name.partition(".")[0] + exporter.suffix)
    size = parse_size(image_size)
    exporter.require(exporter.writer_packages)
    from dataclasses import replace

    import numpy as np

    from hybridvit.checkpoints import load
    from hybridvit.data.preprocess import prepare
    from hybridvit.data.scan import find_images
    from hybridvit.export.pipeline import export as export_model

    paths = find_images(images)[:MOST_IMAGES] if images else []
    model = load(source)
    prepared = model.card.preprocessing
    prepared = replace(prepared, image_size=size or prepared.image_size)
    batch = np.stack([prepare(path, prepared) for path in paths]) if paths else None
    report = export_model(model, target, to=to, images=batch, image_size=size, dynamic_size=dynamic_size)
    parity = report.parity
    print(f"Exported {model.card.architecture}, folded, to {report.path}")
    print(
        pairs(
            [
                ("Size", f"{report.size_bytes / 1e6:.2f} MB"),
                ("Input", f"batch x {model.in_chans} x {_sides(prepared.image_size, report.range_px)}, fp32"),
                ("Largest difference", f"{parity.max_error:.1e} of the largest output (limit {parity.limit:.0e})"),
                ("  by folding alone", f"{report.folding.max_error:.1e}"),
                ("Compared on", _compared(parity)),
            ]
        )
    )


def _sides(size: tuple[int, int], range_px: tuple[int, int] | None) -> str:
    if range_px is None:
        return f"{size[0]} x {size[1]}"
    return f"height x width, each from {range_px[0]} to {range_px[1]}"


def _compared(parity: "Parity") -> str:
    sizes = ", ".join(f"{height}x{width}" for height, width in parity.image_sizes)
    text = f"random batches of {', '.join(str(size) for size in parity.batch_sizes)} at {sizes} px"
    return text + (
        f"; {parity.real_images} images, same first answer on {parity.same_top1}" if parity.real_images else ""
    )
