"""Open any file this library writes or reads, by its suffix: exported models for their runtime, the rest as weights."""

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from hybridvit.errors import UsageError
from hybridvit.export.embeddings import TextRunner, TowerRunner, check_is_tower
from hybridvit.export.runners import Runner, TorchRunner
from hybridvit.export.seal import Trust
from hybridvit.export.targets import EXPORTERS, exporter_of, load_runner
from hybridvit.hub import local_file
from hybridvit.machine.facts import check_threads, usable_cores
from hybridvit.machine.light import check_whole

if TYPE_CHECKING:
    from hybridvit.models.backbone import Backbone
    from hybridvit.models.whole import WholeModel
    from hybridvit.models.zero_shot import TextMatrix

Device = Literal["auto", "cpu", "cuda", "mps"]


def load(
    path: str | os.PathLike[str], *, architecture: str | None = None, trust_changed: bool = False
) -> "WholeModel | Runner":
    """The model in the file at `path`: a PyTorch module in eval mode, or for an exported file (.onnx, .xml) its runner.

    A path may be hf://OWNER/NAME, with @REVISION behind it or not: see `hybridvit.hub`. `architecture` demands one; see
    `hybridvit.checkpoints.load`. `trust_changed` opens an exported file that its owner
    changed on purpose, as converters and simplifiers do. Raises CheckpointError for anything wrong with the file,
    UsageError for an unknown architecture or a runtime that is not installed.
    """
    path = local_file(path)
    if is_exported(path):
        return load_runner(path, trust=Trust(changed=trust_changed))
    _check_no_trust(path, trust_changed)
    check_whole(f"{path} is no exported file, so it")
    from hybridvit.checkpoints import load as load_weights_file

    return load_weights_file(path, architecture=architecture)


def open_runner(
    path: str | os.PathLike[str],
    *,
    device: Device = "cpu",
    threads: int | None = None,
    trust_changed: bool = False,
    callers: int = 1,
    zero_shot: str | os.PathLike[str] | None = None,
    embeddings: bool = False,
) -> Runner:
    """Any file as a runner: exported files in their own runtime, on the CPU; weights in PyTorch, folded, on `device`.

    `trust_changed` as for `load`. `callers` is how many threads want to call it at once: where the runtime takes that,
    each computes on its share of `threads`, which are then as many as there are cores if nothing is said; the runner's
    own `callers` tells how many may. Of an image tower the runner gives with `embeddings` the vectors of length 1, and
    with `zero_shot`, a file for `hybridvit.models.zero_shot.read_text_matrix`, the logits of its classes. Raises
    UsageError for a device that is not there, or that the file's runtime does not use, for what is no such file, and
    for a model that is no image tower; else as `load`.
    """
    if zero_shot is not None and embeddings:
        raise UsageError(
            f"zero_shot is {zero_shot}, and embeddings are asked for too: a model is asked for one of both. Leave one "
            "out."
        )
    check_threads(threads)
    path = local_file(path)
    matrix = None if zero_shot is None else _text_matrix(zero_shot)
    if is_exported(path):
        if device not in ("auto", "cpu"):
            raise UsageError(f"The device is '{device}', but {path} runs on the CPU. Leave --device out.")
        exporter = exporter_of(path)
        if threads is not None and not exporter.takes_threads:
            raise UsageError(f"threads is {threads}, but {exporter.title} counts its own. Leave --threads out.")
        if exporter.runner.takes_callers and callers > 1:
            cores = threads or usable_cores()
            callers = min(callers, cores)
            threads = cores // callers
        else:
            callers = 1
        runner = load_runner(path, threads=threads, trust=Trust(changed=trust_changed))
        runner.callers = callers
        if matrix is not None:
            return TextRunner(TowerRunner(runner, path), matrix)
        return TowerRunner(runner, path) if embeddings else runner
    _check_no_trust(path, trust_changed)
    check_whole(f"{path} is no exported file, so it")
    import torch

    from hybridvit.checkpoints import load as load_weights_file
    from hybridvit.evaluate.run import ready

    device = present_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    model = load_weights_file(path)
    if matrix is not None:
        from hybridvit.models.zero_shot import with_text_matrix

        check_is_tower(model.card, path)
        model = with_text_matrix(cast("Backbone", model), matrix)
    folded = cast("WholeModel", ready(model))
    card = replace(model.card, embedding_space=folded.card.embedding_space)
    made = TorchRunner(folded, card, device=device)
    return TowerRunner(made, path) if embeddings else made


def _text_matrix(path: str | os.PathLike[str]) -> "TextMatrix":
    check_whole(f"Reading the texts in {path}")
    from hybridvit.models.zero_shot import read_text_matrix

    return read_text_matrix(Path(path))


def present_device(device: Device) -> Literal["cpu", "cuda", "mps"]:
    """`device`, or for "auto" the fastest kind there is. Raises UsageError for one that is not there."""
    import torch

    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return "cuda" if present["cuda"] else "mps" if present["mps"] else "cpu"
    if not present[device]:
        there = ", ".join(name for name, is_there in present.items() if is_there)
        raise UsageError(
            f"The device is '{device}', but this machine has: {there}. Use --device {there.split(',')[0]}."
        )
    return device


def _check_no_trust(path: str | os.PathLike[str], trust_changed: bool) -> None:
    if trust_changed:
        raise UsageError(f"--trust_changed is for exported files, but {path} is a checkpoint. Leave it out.")


def is_exported(path: str | os.PathLike[str]) -> bool:
    """Whether the suffix of `path` is that of an export target."""
    return Path(path).suffix in {exporter.suffix for exporter in EXPORTERS.values()}
