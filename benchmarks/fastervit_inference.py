"""FasterViT against NVIDIA's package, and its time and memory over the resolution.

    python benchmarks/fastervit_inference.py                 # 2 CPU cores, fp32; eager, ONNX Runtime, OpenVINO
    python benchmarks/fastervit_inference.py --device cuda   # batch 128 in bf16, channels-last, eager and compiled

Needs the `fastervit` package, which is installed for development alone: its licence is non-commercial. Its "deployed"
form has the position biases computed beforehand. Both models are exported to ONNX by the same call, and OpenVINO reads
that file. Weights are random: they do not change the time.
"""

import argparse
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import MethodType

import torch
from comparison import compare, report
from in_runtimes import opened, to_onnx
from inference import forward
from torch import nn

import hybridvit

VARIANTS = (0, 2)
BATCHES = (1, 16)
WHOLE_WINDOWS_PX = (224, 448, 896, 1344)  # stages 3 and 4 are whole windows of 7
PADDED_PX = (512, 1024)
PROGRAM = Path(__file__).parent / "programs" / "peak_memory.py"


def theirs(variant: int, *, deployed: bool = False, device: str = "cpu") -> nn.Module:
    """NVIDIA's model at 224 px, in eval mode."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that it uses in old ways
        import fastervit

        model: nn.Module = fastervit.create_model(f"faster_vit_{variant}_224").eval().to(device)
    if deployed:
        with torch.no_grad():
            model(torch.randn(1, 3, 224, 224, device=device))  # computes what is kept
        for module in model.modules():
            if isinstance(switch := getattr(module, "switch_to_deploy", None), MethodType):
                switch()
    return model


def candidates(variant: int) -> dict[str, Callable[[], nn.Module]]:
    """The models of one comparison, built when asked for."""
    return {
        "NVIDIA's": lambda: theirs(variant),
        "NVIDIA's, deployed": lambda: theirs(variant, deployed=True),
        "ours": lambda: hybridvit.create_model(f"fastervit_{variant}").eval(),
        "ours, folded": lambda: hybridvit.fold(hybridvit.create_model(f"fastervit_{variant}").eval()),
    }


def on_cpu(rounds: int) -> list[dict[str, object]]:
    """Time in each runtime at 224 px, and over the resolution; peak memory."""
    torch.set_num_threads(2)
    results = []
    for variant in VARIANTS:
        for batch in BATCHES:
            images, repeats = torch.randn(batch, 3, 224, 224), max(12, rounds // batch)
            models = {label: build() for label, build in candidates(variant).items()}
            title = f"fastervit_{variant}, batch {batch}, 224 px"
            eager = {label: forward(model, images) for label, model in models.items()}
            results.append(compare(f"{title}, eager", eager, rounds=repeats))
            exported = {
                "NVIDIA's": theirs(variant),
                "ours, folded": hybridvit.fold(models["ours"], image_size=224),
            }
            del eager, models
            files = {label: to_onnx(model, images) for label, model in exported.items()}
            for runtime, target in (("ONNX Runtime", "onnx"), ("OpenVINO", "openvino")):
                runs = {label: opened(target, content, images) for label, content in files.items()}
                results.append(compare(f"{title}, {runtime}", runs, rounds=repeats))
        results.append(over_resolution(variant, rounds=max(8, rounds // 8)))
        results.append(peak_memory(variant))
    return results


def over_resolution(
    variant: int, *, rounds: int, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> dict[str, object]:
    """How much faster than the number of pixels the time of our folded model grows, from 224 px on, batch 1."""
    model = hybridvit.fold(hybridvit.create_model(f"fastervit_{variant}").eval()).to(device=device, dtype=dtype)
    sides = sorted(WHOLE_WINDOWS_PX + PADDED_PX) + ([2048] if device == "cuda" else [])
    images = {side: torch.randn(1, 3, side, side, device=device, dtype=dtype) for side in sides}
    runs = {f"{side} px": forward(model, image) for side, image in images.items()}
    result = compare(f"fastervit_{variant} folded, batch 1, over the resolution", runs, device=device, rounds=rounds)
    rows = result["rows"]
    assert isinstance(rows, dict)
    for side in sides:
        growth = rows[f"{side} px"]["median_ms"] / rows["224 px"]["median_ms"] / (side / 224) ** 2
        rows[f"{side} px"]["growth_over_pixels"] = round(growth, 3)
        print(f"  {side} px: time over pixels x{growth:.2f}{' (pads)' if side in PADDED_PX or side == 2048 else ''}")
    return result


def peak_memory(variant: int) -> dict[str, object]:
    """Peak of a fresh interpreter that builds a model and runs it once, in MiB; imports included. Linux alone."""
    sizes = [(1, 224), (16, 224), (1, 1344)]
    rows: dict[str, dict[str, int]] = {}
    for label in candidates(variant):
        for batch, side in sizes:
            if side != 224 and label.startswith("NVIDIA's"):
                continue  # it takes the one size that it was built for
            words = [sys.executable, str(PROGRAM), str(variant), label, str(batch), str(side)]
            paths = os.pathsep.join([str(PROGRAM.parents[1]), *sys.path])
            environment = os.environ | {"PYTHONPATH": paths}
            run = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
            rows.setdefault(label, {})[f"batch {batch}, {side} px"] = round(float(run.stdout.splitlines()[-1]))
    print(f"\nfastervit_{variant}, peak memory in MiB")
    for label, row in rows.items():
        print(f"  {label:<20}", ", ".join(f"{size}: {peak}" for size, peak in row.items()))
    return {"title": f"fastervit_{variant}, peak memory in MiB", "rows": rows}


def on_gpu(rounds: int) -> list[dict[str, object]]:
    """Images per second at batch 128 in bf16, channels-last, eager and compiled; then the curve over the resolution."""
    results = []
    for variant in VARIANTS:
        images = torch.randn(128, 3, 224, 224, device="cuda", dtype=torch.bfloat16)
        images = images.to(memory_format=torch.channels_last)
        for label in ("eager", "compiled"):
            runs = {}
            for key, build in candidates(variant).items():
                if find_spec("fastervit") is None and key.startswith("NVIDIA's"):
                    continue  # ours alone, where only torch and timm are installed
                model = build().to(device="cuda", dtype=torch.bfloat16).to(memory_format=torch.channels_last)
                if label == "compiled":
                    model.compile()
                runs[key] = forward(model, images)
            title = f"fastervit_{variant}, batch 128, 224 px, bf16, {label}"
            results.append(compare(title, runs, device="cuda", rounds=rounds))
        results.append(over_resolution(variant, rounds=rounds, device="cuda", dtype=torch.bfloat16))
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--output", type=Path, help="write the JSON here too")
    arguments = parser.parse_args()
    measured = on_gpu(arguments.rounds) if arguments.device == "cuda" else on_cpu(arguments.rounds)
    report("fastervit_inference", measured, output=arguments.output)
