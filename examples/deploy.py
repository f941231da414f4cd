"""One checkpoint, files for several runtimes, each proven equal, and the same answer from all of them.

python examples/deploy.py --model runs/example-classify/model.safetensors --to onnx openvino executorch coreml
python examples/deploy.py                                                 an untrained model, to see how it goes
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import hybridvit
from hybridvit.checkpoints import load
from hybridvit.errors import ImageDecodeError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a checkpoint; the files are written beside it")
    parser.add_argument("--to", nargs="+", default=["onnx", "openvino"], help="targets of `hybridvit export --help`")
    parser.add_argument("--picture", help="what to ask them; by default noise")
    options = parser.parse_args()

    path = options.model or Path("runs/example-deploy/model.safetensors")
    if not options.model:
        path.parent.mkdir(parents=True, exist_ok=True)
        hybridvit.save_checkpoint(hybridvit.create_model("fastvit_t8").eval(), path)
    model = load(path)
    print(hybridvit.fold_report(model, hybridvit.fold(model)))

    picture = options.picture or Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8))
    for target in options.to:
        # Raises ExportError, and leaves nothing, if the file's answers in its own runtime are not the model's.
        written = hybridvit.export(path, to=target)
        (answer,) = hybridvit.Predictor(written.path)([picture], most=1)
        said = answer if isinstance(answer, ImageDecodeError) else answer.to_dict()
        difference = f"{written.parity.max_error:.0e} of the largest output from PyTorch's"
        print(f"{written.path}: {written.size_bytes / 2**20:.1f} MiB, {difference}; {said}")


if __name__ == "__main__":
    main()
