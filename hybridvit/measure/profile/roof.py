"""The roofs of this machine: how fast it multiplies and how fast it moves bytes (Williams et al., 2009)."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import torch

SECONDS = 1.0  # that each roof is measured for
MATRIX = {"cpu": 1024, "cuda": 8192}  # rows and columns
COPY_BYTES = {"cpu": 2**28, "cuda": 2**30}  # of what is copied: more than caches hold
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Roof:
    """What this machine reaches in PyTorch with so many threads; a multiply-add is two FLOP."""

    fp32_flop_per_s: float  # of a matrix product
    bf16_flop_per_s: float
    bytes_per_s: float  # read and written by a copy

    @property
    def ridge(self) -> float:
        """FLOP per byte at which the fp32 roof begins: with fewer, memory is the bound."""
        return self.fp32_flop_per_s / self.bytes_per_s

    def attainable(self, intensity: float) -> float:
        """FLOP/s in fp32 of code that does `intensity` FLOP per byte."""
        return min(self.fp32_flop_per_s, intensity * self.bytes_per_s)

    def binds(self, intensity: float) -> str:
        """ "memory" or "compute": which roof is the lower one there."""
        return "memory" if intensity < self.ridge else "compute"

    def to_dict(self) -> dict[str, float]:
        """Plain types for JSON."""
        return asdict(self)


def measure_roof(device: str = "cpu", *, seconds: float = SECONDS) -> Roof:
    """The best rates in `seconds` of each; with the threads that torch is set to."""
    kind = device.partition(":")[0]
    wait = torch.cuda.synchronize if kind == "cuda" else (lambda: None)
    side, num_bytes = MATRIX[kind], COPY_BYTES[kind]
    rates = {}
    with torch.inference_mode():
        for name, dtype in DTYPES.items():
            first, second = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
            rates[name] = 2 * side**3 / _fastest(partial(torch.matmul, first, second), wait, seconds)
        source = torch.ones(num_bytes, dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        copied = 2 * num_bytes / _fastest(lambda: target.copy_(source), wait, seconds)
    return Roof(fp32_flop_per_s=rates["fp32"], bf16_flop_per_s=rates["bf16"], bytes_per_s=copied)


def _fastest(run: Callable[[], object], wait: Callable[[], None], seconds: float) -> float:
    """The seconds of the fastest call: what disturbs a machine only ever slows it."""
    run()
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < seconds:
        wait()
        start = time.perf_counter()
        run()
        wait()
        best = min(best, time.perf_counter() - start)
    return best
