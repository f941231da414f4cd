"""Time and memory of folding the largest FastViT, and the time that imports take.

    python benchmarks/fold_cost.py

Memory is how much a fresh interpreter's peak grows while it builds the model and folds it, over the size of the
model's weights: 2 would be the model and its folded form alone. Imports run in fresh interpreters, interleaved.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

from comparison import report

IMPORTS = {
    "timm": "import timm",
    "hybridvit": "import hybridvit",
    "hybridvit, models ready": "import hybridvit; hybridvit.create_model",
    "hybridvit and timm": "import hybridvit, timm",
}
PROGRAM = Path(__file__).parent / "programs" / "fold_once.py"


def fold_ma36() -> dict[str, float]:
    """Seconds, and memory relative to the model's weights, in an interpreter of its own."""
    runs = [run(str(PROGRAM)).split() for _ in range(3)]
    seconds, growth_mib = (statistics.median(float(values[column]) for values in runs) for column in range(2))
    model_mib = 44_068_004 * 4 / 2**20
    return {"seconds": round(seconds, 3), "memory_over_model": round(growth_mib / model_mib, 3)}


def imports(rounds: int = 7) -> dict[str, float]:
    """Median seconds of an interpreter that imports, relative to timm's."""
    seconds: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for _ in range(rounds):
        for name, statement in IMPORTS.items():
            start = time.perf_counter()
            run("-c", statement)
            seconds[name].append(time.perf_counter() - start)
    return {name: round(statistics.median(times), 3) for name, times in seconds.items()}


def run(*words: str) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    folding, importing = fold_ma36(), imports()
    print(f"Folding fastvit_ma36: {folding['seconds']} s, peak {folding['memory_over_model']} x the model's memory")
    for label, value in importing.items():
        print(f"{label:<26} {value:.2f} s, {value / importing['timm']:.2f} x timm's")
    report("fold_cost", {"fold_ma36": folding, "import_seconds": importing})
