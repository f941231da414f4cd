"""Which model is fastest on this machine? Time some against each other in one run, by turns, and draw a chart.

python examples/measure.py fastvit_sa12 fastervit_0 repvit_m1_1 convnext_tiny
python examples/measure.py runs/example-deploy/model.onnx runs/example-deploy/model.xml
"""

import argparse
from pathlib import Path

import hybridvit
from hybridvit.charts.tradeoff import draw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["fastvit_t8", "mobilenetv3_large_100"], help="names and files")
    parser.add_argument("--runtimes", nargs="+", help="torch, onnxruntime, openvino, ...; by default all that are here")
    parser.add_argument("--rounds", type=int, default=20, help="turns of each; more make the intervals narrower")
    parser.add_argument("--chart", type=Path, help="also draw latency against accuracy: .html or .png")
    options = parser.parse_args()

    asked = hybridvit.BenchOptions(runtimes=options.runtimes, rounds=options.rounds)
    result = hybridvit.bench(options.models, asked, show=print)
    for row in sorted(result.records(), key=lambda record: record["median_ms"]):
        interval = f"{row['low_ms']:.2f} to {row['high_ms']:.2f}"
        print(f"{row['model']:>24}  {row['runtime']:<12} {row['median_ms']:8.2f} ms  ({interval})")
    for left_out in result.skipped:
        print(left_out)
    for warning in result.warnings():  # such as that another process took the cores
        print("Note:", warning)
    if options.chart:
        draw(result.to_dict(), options.chart)


if __name__ == "__main__":  # every candidate is timed in processes of its own
    main()
