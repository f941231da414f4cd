"""`hybridvit fold`: the same answers from fewer layers."""

from pathlib import Path

from hybridvit.cli.table import pairs
from hybridvit.errors import UsageError
from hybridvit.hub import hub_place
from hybridvit.loading import is_exported


def fold(checkpoint: str, *, output: str | None = None, released: bool = False) -> None:
    """Fold a checkpoint: all branches and norms become part of the convolutions beside them.

    The result computes the same with fewer layers, and cannot be trained further as it was. The largest difference on
    random images is printed, relative to the largest output; it is rounding, about 1e-6.

    Examples:
      hybridvit fold runs/digits/model.safetensors
      hybridvit fold fastvit_sa12.pth.tar --output sa12-folded.safetensors

    Args:
        checkpoint: .safetensors, .pth, .pth.tar or .ckpt, in training form.
        output: file to write; by default beside the checkpoint (here, if that is on the hub), with -folded in its
            name.
        released: fold only what the published folded checkpoints fold, to write weights for other software.
    """
    if is_exported(checkpoint):
        raise UsageError(f"{checkpoint} is an exported model, which is folded already. Give the weights it came from.")
    place = hub_place(checkpoint)
    target = Path(output) if output else _beside(Path(place.name if place else checkpoint))
    if target.suffix != ".safetensors":
        raise UsageError(f"The output is {target}, but checkpoints are written as .safetensors. Change its suffix.")
    if target.exists() and place is None and Path(checkpoint).exists() and target.samefile(checkpoint):
        raise UsageError(
            f"The output {target} is the checkpoint itself, which could not be trained again. Name another."
        )
    from hybridvit.checkpoints import load, save_checkpoint
    from hybridvit.folding.fold import fold as fold_model
    from hybridvit.folding.report import fold_report

    model = load(checkpoint)
    if model.card.form == "folded":
        raise UsageError(f"{checkpoint} is folded already ({model.card.architecture}). There is nothing to do.")
    folded = fold_model(model, released=released)
    report = fold_report(model, folded)
    save_checkpoint(folded, target)
    rows = [
        ("Largest difference", f"{report.max_error:.1e} of the largest output"),
        ("Folded", f"{len(report.folded)} blocks"),
        ("Left", ", ".join(report.left) or "nothing"),
        ("Parameters", f"{report.parameters_before:,} -> {report.parameters_after:,}"),
        ("Layers", f"{sum(report.layers_before.values())} -> {sum(report.layers_after.values())}"),
    ]
    print(f"Folded {model.card.architecture} into {target}", pairs(rows), sep="\n")


def _beside(checkpoint: Path) -> Path:
    from hybridvit.checkpoints.sniff import WEIGHT_ENDINGS

    stem = checkpoint.name
    while ending := next((ending for ending in WEIGHT_ENDINGS if stem.endswith(ending)), ""):
        stem = stem.removesuffix(ending)
    return checkpoint.with_name(f"{stem}-folded.safetensors")
