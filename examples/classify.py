"""Which class is on a photo? Learn it from photos in class folders, and write a file for ONNX Runtime.

python examples/classify.py --photos my_photos        photos/train/CLASS/*.jpg and photos/val/CLASS/*.jpg
python examples/classify.py                           a tiny model on handwritten digits, in a minute or two
"""

import argparse
from pathlib import Path

import hybridvit
from hybridvit.errors import ImageDecodeError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", help="folder with train/ and val/, each with one folder for each class")
    parser.add_argument("--model", default="fastvit_sa12", help="a name of `hybridvit list`; its published weights")
    parser.add_argument("--epochs", type=int, default=6, help="passes over the pictures; for photos rather 15")
    parser.add_argument("--output", default="runs/example-classify", help="folder of the run")
    options = parser.parse_args()

    if options.photos:  # from published weights, with a new classifier for these classes
        recipe, data = "finetune", {"model": options.model, "data.root": options.photos}
    else:
        recipe, data = "digits", {"model": "fastvit_debug", "optim.lr": 1e-2}
    run = hybridvit.train(recipe, {**data, "schedule.epochs": options.epochs, "output": options.output})
    print(*run.summary(), sep="\n")

    # The file is folded, and compared with the checkpoint before it is kept. Classes and preprocessing are inside.
    written = hybridvit.export(run.model, to="onnx")
    root = Path(options.photos or "runs/data/digits")
    validation = root / ("val" if options.photos else "test")
    found = hybridvit.evaluate(written.path, validation)
    print(f"{written.path}: {found.scores.values['top1']:.2f} % of {found.num_samples:,} right")

    photo = next(path for path in sorted(validation.rglob("*")) if path.is_file())
    for name, answer in hybridvit.predict(written.path, photo, top=3).items():
        print(name, answer if isinstance(answer, ImageDecodeError) else answer.to_dict())


if __name__ == "__main__":  # loader processes run the top level again
    main()
