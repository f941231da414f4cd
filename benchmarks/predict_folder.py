"""Pictures per second of `hybridvit predict FILE FOLDER --json`, beside what decoding and the runtime allow.

    python benchmarks/predict_folder.py                      # 300 JPEGs of 500x375, fastvit_t8 in ONNX Runtime
    python benchmarks/predict_folder.py --model digits.onnx --rounds 9

Each round, in turns: all pictures are decoded and prepared (`decoding`), as many inputs are computed (`runtime`), both
by a thread a core, of which each computes on one core; and the command answers the folder. Decoding and computing
share the cores, so together they allow 1 / (1 / decoding + 1 / runtime) pictures per second: `share` is the command's
rate by that one of the same round, which a machine that others use disturbs least. The command's time is from its first
word to its last line, in a process that has imported all: opening the file is in it.

Beside it, the same command with other batches, and one picture after the other: computed by all cores, while one thread
decodes the next.
"""

import argparse
import contextlib
import dataclasses
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from comparison import report
from loader import write_photos

import hybridvit
from hybridvit.cli import main as command
from hybridvit.data.imagenet import class_names
from hybridvit.data.inputs import pictures
from hybridvit.machine.facts import usable_cores
from hybridvit.measure.latency import take_turns
from hybridvit.models.backbone import Backbone
from hybridvit.predictor import Predictor

DECODING, RUNTIME, PREDICT = "decoding", "runtime", "predict --json"


def exported(name: str, folder: Path) -> Path:
    """A file of ONNX Runtime, with random weights and ImageNet's classes."""
    torch.manual_seed(0)
    model = hybridvit.create_model(name).eval()
    assert isinstance(model, Backbone)
    model.card = dataclasses.replace(model.card, class_names=class_names())
    return hybridvit.export(model, folder / f"{name}.onnx").path


def silently(words: Sequence[str]) -> Callable[[], object]:
    """The command without its output."""

    def run() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            assert command(words) == 0

    return run


def candidates(file: Path, photos: Sequence[Path]) -> dict[str, Callable[[], object]]:
    """What is timed, by name; each answers or prepares all photos."""
    cores = usable_cores()
    side_by_side, alone = Predictor(file, workers=cores), Predictor(file)
    images = [side_by_side.prepare(photo).image[None] for photo in photos[:cores]]
    pool = ThreadPoolExecutor(cores)
    words = ["predict", str(file), str(photos[0].parent.parent), "--json"]
    return {
        DECODING: lambda: list(pool.map(side_by_side.prepare, photos)),
        RUNTIME: lambda: list(pool.map(side_by_side.runner, [images[each % cores] for each in range(len(photos))])),
        PREDICT: silently(words),
        "predict --json --batch 16": silently([*words, "--batch", "16"]),
        "one after the other": lambda: list(alone.stream(pictures(photos), batch=1)),
        "16 after the others": lambda: list(alone.stream(pictures(photos), batch=16)),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fastvit_t8", help="a name, or an exported file")
    parser.add_argument("--photos", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, help="write the JSON here too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = write_photos(Path(temporary, "photos"), number=arguments.photos, size=(500, 375))
        given = Path(arguments.model)
        file = given if given.suffix else exported(arguments.model, Path(temporary))
        photos = sorted(folder.rglob("*.jpg"))
        runs = candidates(file, photos)
        for run in runs.values():
            run()
        processor: dict[str, list[float]] = {name: [] for name in runs}

        def turn(name: str, calls: int) -> list[float]:
            began, before = time.perf_counter(), time.process_time()
            for _ in range(calls):
                runs[name]()
            processor[name].append(time.process_time() - before)
            return [time.perf_counter() - began]

        turns = {name: lambda calls, name=name: turn(name, calls) for name in runs}
        *_, seconds = take_turns(turns, rounds=arguments.rounds)
    print_and_report(seconds, processor, len(photos), arguments.output)


def print_and_report(
    seconds: dict[str, list[float]], processor: dict[str, list[float]], num_photos: int, output: Path | None
) -> None:
    """A row for each candidate: pictures per second, processor time of one, and its share of what is possible."""
    allowed = [first + second for first, second in zip(seconds[DECODING], seconds[RUNTIME], strict=True)]
    rows = {}
    for name, taken in seconds.items():
        shares = sorted(least / each for least, each in zip(allowed, taken, strict=True))
        rows[name] = {
            "per_second": round(num_photos / statistics.median(taken), 1),
            "processor_ms": round(statistics.median(processor[name]) / num_photos * 1e3, 2),
            "share": round(statistics.median(shares), 3),
            "lowest_share": round(shares[0], 3),
            "highest_share": round(shares[-1], 3),
        }
        print(
            f"{name:<26} {rows[name]['per_second']:7.1f} a second {rows[name]['processor_ms']:7.2f} ms of a core each"
        )
    print(f"Of what is possible, {PREDICT} does {rows[PREDICT]['share']:.2f} (median of {len(allowed)} rounds).")
    report("predict_folder", rows, output=output)


if __name__ == "__main__":
    main()
