"""Which of several labels has a picture? Learn it from a table of paths and labels.

python examples/multilabel.py --table photos/train.csv      path,labels with a row such as  beach.jpg,sea;sand
python examples/multilabel.py                               up to four handwritten digits in a picture
"""

import argparse
from pathlib import Path

import hybridvit
from hybridvit.errors import ImageDecodeError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, help="CSV, TSV or Parquet; its paths are relative to its folder")
    parser.add_argument("--model", default="fastvit_sa12", help="for a table: a name of `hybridvit list`")
    parser.add_argument("--epochs", type=int, default=2, help="passes over the training pictures; better with more")
    parser.add_argument("--output", default="runs/example-multilabel", help="folder of the run")
    options = parser.parse_args()

    keys: dict[str, object] = {"schedule.epochs": options.epochs, "output": options.output}
    if options.table:  # a fifth of the rows is held out, with some of every label
        keys |= {"model": options.model, "data.root": str(options.table.parent)}
        keys |= {"data.train": options.table.name, "data.val_share": 0.2}
        pictures = options.table.parent
    else:
        pictures = Path("runs/data/several_digits")
    run = hybridvit.train("multilabel" if options.table else "several_digits", keys)
    print(*run.summary(), sep="\n")

    shown = sorted(path for path in pictures.rglob("*") if path.suffix in (".jpg", ".png"))[:5]
    for path, answer in hybridvit.predict(run.model, shown).items():
        said = [str(answer)] if isinstance(answer, ImageDecodeError) else answer.lines()
        print(path, *said, sep="\n  ")  # labels above 50 %


if __name__ == "__main__":  # loader processes run the top level again
    main()
