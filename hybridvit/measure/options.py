"""What to measure and how: one value for the command line and for Python. Importing it imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """The options of `bench`. One that is None is as the protocol has it, and by default as its text says."""

    runtimes: Sequence[str] | None = None
    """torch, torch-compile, onnxruntime, openvino, executorch, litert, tensorrt; by default torch, onnxruntime and
    openvino, where installed, and of an exported file its own."""
    precisions: Sequence[str] | None = None
    """fp32, fp16, bf16, int8 (calibrated on noise, for its time alone); by default fp32, and of an exported file its
    own."""
    forms: Sequence[str] | None = None
    """folded, training (in PyTorch); by default folded."""
    batch: Sequence[int] | None = None
    """images per call, one or several; times are per call; by default 1, or that of an exported file that takes no
    other."""
    image_size: Sequence[tuple[int, int]] | None = None
    """height x width in pixels, one or several: 256, or 192x320; by default each model's own."""
    threads: int | None = None
    """CPU threads of every runtime; by default all cores that this process may use."""
    device: Literal["cpu", "cuda"] | None = None
    """cpu or cuda, for PyTorch, by default cpu; runtimes that compute elsewhere are then left out."""
    rounds: int | None = None
    """turns of each candidate, at least 8; by default 50."""
    calls: int | None = None
    """timed calls of a turn; by default 3."""
    processes: int | None = None
    """processes that each candidate is opened in and takes its turns in one after the other, as far as memory allows;
    by default 3."""
    seconds: float | None = None
    """stop after this time, but not before 8 rounds."""
    returns: Literal["pyramid"] | None = None
    """pyramid: time the four feature maps of a backbone alone, which segmenters and detectors are built on, without
    classifier or head."""
    protocol: str | None = None
    """that of a paper, which sets what is not given: fastvit-gpu, fastvit-dense, fastervit-gpu, phone."""
    files: Path | None = None
    """folder that keeps the converted files for another run."""
    trust_changed: bool = False
    """take exported files that were changed on purpose (simplified, converted to fp16)."""


@dataclass(frozen=True, kw_only=True)
class ChooseOptions:
    """The options of `choose`: among what, by which rule, measured how."""

    max_latency_ms: float | None = None
    """longest median time for one image, in milliseconds."""
    models: Sequence[str] | None = None
    """names from `hybridvit list`, of timm, or checkpoints; by default all of ours with published weights."""
    runtime: Sequence[str] | None = None
    """torch, torch-compile, onnxruntime, openvino, executorch, litert, tensorrt; one or several; by default torch,
    onnxruntime and openvino, where installed."""
    precisions: Sequence[str] | None = None
    """fp32, fp16, bf16, int8; by default fp32."""
    max_drop: float | None = None
    """percentage points of top-1 that a checkpoint may lose on --data; by default 0.5."""
    data: Path | None = None
    """folder of class folders that a checkpoint's accuracy is measured on."""
    zero_shot: Path | None = None
    """of image towers such as fastvit_mci0, a .safetensors file with the texts of the classes of --data
    (docs/mci.md)."""
    calibration: Path | None = None
    """folder of class folders that int8 is calibrated on, beside --data."""
    image_size: tuple[int, int] | None = None
    """height x width in pixels; by default each model's own."""
    threads: int | None = None
    """CPU threads; by default all cores that this process may use."""
    rounds: int = 50
    """turns of each candidate, at least 8."""
    seconds: float | None = None
    """stop measuring after this time, but not before 8 rounds."""
    files: Path | None = None
    """folder that keeps the files, so that the chosen one can be used."""


DEFAULTS, CHOOSE_DEFAULTS = BenchOptions(), ChooseOptions()
