"""`hybridvit export`: one file for another runtime, proven equal."""

from pathlib import Path

from hybridvit.cli.size import parse_size
from hybridvit.cli.table import pairs
from hybridvit.errors import UsageError
from hybridvit.export.targets import exporter_for
from hybridvit.loading import is_exported

MOST_IMAGES = 64  # to compare with; more prove nothing new and take time


def export(
    checkpoint: str,
    *,
    to: str = "onnx",
    output: str | None = None,
    image_size: str | None = None,
    images: list[str] | None = None,
) -> None:
    """Write a checkpoint for another runtime, and prove that it answers the same.

    The model is folded first. The written file is run by its own runtime on random images in batches of 1, 2 and 5, and
    on yours if you name some, and compared with PyTorch; it is kept only if no output differs by more than 1e-5 of the
    largest. Class names, input size and preprocessing are inside: `hybridvit predict model.onnx photo.jpg` needs
    nothing else, not even torch.

    Examples:
      hybridvit export runs/digits/model.safetensors
      hybridvit export model.safetensors --to onnx --output digits.onnx --images runs/data/digits/test
      hybridvit export fastvit_sa12.pth.tar --image_size 192x320

    Args:
        checkpoint: .safetensors, .pth or .pth.tar, in any form.
        to: the target: onnx (one file, any batch size, fp32).
        output: file to write; by default beside the checkpoint.
        image_size: height x width in pixels that the file will take: 256, or 192x320; by default the checkpoint's own.
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
    from hybridvit.data.decode import decode_image
    from hybridvit.data.preprocess import preprocess
    from hybridvit.data.scan import find_images
    from hybridvit.export.pipeline import export as export_model

    paths = find_images(images)[:MOST_IMAGES] if images else []
    model = load(source)
    prepared = model.card.preprocessing
    prepared = replace(prepared, image_size=size or prepared.image_size)
    batch = np.stack([preprocess(decode_image(path), prepared) for path in paths]) if paths else None
    report = export_model(model, target, to=to, images=batch, image_size=size)
    parity = report.parity
    print(f"Exported {model.card.architecture}, folded, to {report.path}")
    print(
        pairs(
            [
                ("Size", f"{report.size_bytes / 1e6:.2f} MB"),
                ("Input", f"batch x {model.in_chans} x {prepared.image_size[0]} x {prepared.image_size[1]}, fp32"),
                ("Largest difference", f"{parity.max_error:.1e} of the largest output (limit {parity.limit:.0e})"),
                ("  by folding alone", f"{report.folding.max_error:.1e}"),
                ("Compared on", _compared(parity.batch_sizes, parity.real_images, parity.same_top1)),
            ]
        )
    )


def _compared(batch_sizes: tuple[int, ...], real_images: int, same_top1: int) -> str:
    text = f"random batches of {', '.join(str(size) for size in batch_sizes)}"
    return text + (f"; {real_images} images, same first answer on {same_top1}" if real_images else "")
