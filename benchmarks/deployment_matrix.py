"""Every variant in every target and precision: how far the written file is from PyTorch, and how large it is.

    python benchmarks/deployment_matrix.py                                  # all that this environment converts to
    python benchmarks/deployment_matrix.py --targets litert --variants fastvit_t8
    python benchmarks/deployment_matrix.py --tables                         # only write the tables again

Weights are random but like those of a trained model (`trained_like` of the tests): a fresh layer scale of 1e-5 would
hide a branch that an export lost. Each cell is one export in a process of its own, as `hybridvit export` makes it, at
the variant's own size, with its parity check. Results are added to docs/measurements/deployment-matrix.json, and the
tables in docs/deploy-matrix.md are written anew from it.
"""

import argparse
import json
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock

import hybridvit
from hybridvit.errors import HybridViTError
from hybridvit.export import EXPORTERS
from hybridvit.export.apart import ExportJob, run_apart
from hybridvit.export.options import ExportOptions
from hybridvit.export.spec import PRECISIONS
from hybridvit.machine.facts import machine_card

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from conftest import trained_like

RESULTS, TABLES = Path("docs/measurements/deployment-matrix.json"), Path("docs/deploy-matrix.md")
FAMILIES = ("fastvit", "fastervit")
VARIANTS = [name for name in hybridvit.list_models() if name.startswith(FAMILIES) and "debug" not in name]
BIG = [name for name in VARIANTS if "21k" in name or name in ("fastervit_5", "fastervit_6")]  # 425 to 1,360 million
HEADER = """\
# What every variant becomes in every target

Written by `python benchmarks/deployment_matrix.py`; do not edit. Empty: not measured yet. Each cell is one export at
the variant's own image size: the largest difference from PyTorch in fp32, relative to the largest output, over random
batches and drawn pictures; then the size of the file in MB. int8 is not here: it is judged by its accuracy on a
labelled folder (docs/deploy.md).
"""


def measure(variants: list[str], targets: list[str], precisions: list[str]) -> None:
    """Export each cell that the targets and this environment can do, and keep its result at once."""
    for variant in variants:
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = Path(folder, "model.safetensors")
            hybridvit.save_checkpoint(trained_like(hybridvit.create_model(variant)), checkpoint)
            for target in targets:
                for precision in [each for each in precisions if each in EXPORTERS[target].precisions]:
                    output = checkpoint.with_name(f"{precision}{EXPORTERS[target].suffix}")
                    job = ExportJob(
                        checkpoint=str(checkpoint),
                        output=str(output),
                        to=target,
                        options=ExportOptions(precision=precision),
                    )
                    keep(f"{variant} {target} {precision}", cell(job))


def keep(name: str, result: dict[str, object]) -> None:
    """Add one result to the others; several runs of this script may share the work."""
    RESULTS.parent.mkdir(exist_ok=True)
    with FileLock(f"{RESULTS}.lock"):
        results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
        results[name] = result
        RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def cell(job: ExportJob) -> dict[str, object]:
    """What one export came to, or its error."""
    began = time.perf_counter()
    result: dict[str, object]
    try:
        done = run_apart(job)
        result = {"max_error": done.parity.max_error, "size_bytes": done.size_bytes}
    except HybridViTError as error:
        result = {"error": str(error)}
    result["seconds"] = round(time.perf_counter() - began, 1)
    found = result.get("max_error", result.get("error"))
    print(job.to, job.options.precision, found, f"{result['seconds']} s", flush=True)
    return result


def tables() -> str:
    """The results as Markdown, one table per family."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    columns = [
        (target, precision)
        for target, exporter in EXPORTERS.items()
        for precision in PRECISIONS
        if precision in exporter.precisions and any(key.endswith(f" {target} {precision}") for key in results)
    ]
    lines = [HEADER]
    for family in FAMILIES:
        lines.append("| | " + " | ".join(f"{target} {precision}" for target, precision in columns) + " |")
        lines.append("|---" * (len(columns) + 1) + "|")
        for variant in VARIANTS:
            if variant.startswith(family) and any(key.startswith(f"{variant} ") for key in results):
                cells = [_text(results.get(f"{variant} {target} {precision}")) for target, precision in columns]
                lines.append(f"| {variant} | " + " | ".join(cells) + " |")
        lines.append("")
    machine = machine_card().to_dict()
    lines.append(f"Machine of the last run: {machine['processor']}.")
    return "\n".join(lines) + "\n"


def _text(result: dict[str, object] | None) -> str:
    if result is None:
        return ""
    if "error" in result:
        return "over the limit" if "the limit is" in str(result["error"]) else "not converted"
    return f"{result['max_error']:.1e}, {float(str(result['size_bytes'])) / 1e6:.1f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = [name for name, each in EXPORTERS.items() if all(find_spec(package) for package in each.writer_packages)]
    parser.add_argument(
        "--variants", nargs="+", default=[name for name in VARIANTS if name not in BIG], choices=VARIANTS
    )
    parser.add_argument("--targets", nargs="+", default=here, choices=list(EXPORTERS))
    parser.add_argument("--precisions", nargs="+", default=["fp32", "fp16", "bf16"], choices=PRECISIONS)
    parser.add_argument("--tables", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    if not arguments.tables:
        measure(arguments.variants, arguments.targets, arguments.precisions)
    TABLES.write_text(tables(), encoding="utf-8")
