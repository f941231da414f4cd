"""One checkpoint, files for several runtimes, each proven equal, and the same answer from all of them.

python examples/deploy.py --model runs/example-classify/model.safetensors --to onnx openvino executorch coreml
python examples/deploy.py                                                 an untrained model, to see how it goes
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import hybridvit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a checkpoint")
    parser.add_argument("--to", nargs="+", default=["onnx", "openvino"], help="targets of `hybridvit export --help`")
    parser.add_argument("--picture", help="what to ask them; by default noise")
    parser.add_argument("--output", type=Path, default=Path("runs/example-deploy"), help="folder of the files")
    options = parser.parse_args()

    options.output.mkdir(parents=True, exist_ok=True)
    model = hybridvit.load(options.model) if options.model else hybridvit.create_model("fastvit_t8").eval()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8))
    picture = options.picture or noise

    folded = hybridvit.fold(model)
    print(hybridvit.fold_report(model, folded))
    for target in options.to:
        # Raises ExportError, and leaves nothing, if the file's answers in its own runtime are not the model's.
        written = hybridvit.export(model, options.output / f"model-{target}", to=target)
        predictor = hybridvit.Predictor(written.path)
        (answer,) = predictor([picture], most=1)
        print(f"{written.path}: {written.size_bytes / 2**20:.1f} MiB, {written.parity}; {answer.to_dict()}")


if __name__ == "__main__":
    main()
