"""Which class has each pixel? Learn it from photos and masks, and draw the answers.

python examples/segment.py --photos my_photos      photos and masks in any usual layout, found by looking
python examples/segment.py                         shapes on textured ground, in a minute or two
"""

import argparse
from pathlib import Path

import hybridvit
from hybridvit.data.scan import find_images
from hybridvit.data.scenes import write_segmentation
from hybridvit.errors import ImageDecodeError

PICTURES = {"images", "JPEGImages", "leftImg8bit"}  # the folders that hold no masks, in any layout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--photos", type=Path, help="folder of photos and masks: ADE20K, Cityscapes, Pascal VOC, plain folders"
    )
    parser.add_argument("--model", default="fastvit_sa12", help="for photos: any backbone, ours or one of timm's")
    parser.add_argument("--epochs", type=int, default=4, help="passes over the training pictures; better with more")
    parser.add_argument("--scenes", type=int, default=400, help="to draw and train on, where there are no photos")
    parser.add_argument("--output", default="runs/example-segment", help="folder of the run and of the drawn answers")
    options = parser.parse_args()

    keys: dict[str, object] = {"schedule.epochs": options.epochs, "output": options.output}
    if options.photos:
        recipe, root = "segment", options.photos
        keys |= {"model": options.model, "pretrained": True}
    else:
        recipe, root = "segment_scenes", Path(f"{options.output}-scenes")
        write_segmentation(root, train=options.scenes, val=40)  # in ADE20K's layout
        keys |= {"schedule.warmup_epochs": 0.5}
    run = hybridvit.train(recipe, keys | {"data.source": "folder", "data.root": str(root)})
    print(*run.summary(), sep="\n")

    # An answer lies in the pixels of its picture, whatever size the model computes in.
    found = [path for path in find_images([root]) if PICTURES & set(path.parts)]
    shown = [path for path in found if "val" in path.relative_to(root).as_posix()] or found
    for path, answer in hybridvit.predict(run.model, shown[:6], pictures=run.folder / "drawn").items():
        said = [str(answer)] if isinstance(answer, ImageDecodeError) else answer.lines()
        print(path, *said, sep="\n  ")
    print(f"Drawn in {run.folder / 'drawn'}")


if __name__ == "__main__":  # loader processes run the top level again
    main()
