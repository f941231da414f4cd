"""Where are the objects, and what are they? Learn boxes and masks, judge them by average precision, draw them.

python examples/detect.py --photos my_coco      COCO, YOLO, Pascal VOC, CSV or LabelMe, found by looking
python examples/detect.py                       shapes on textured ground, in a minute or two
"""

import argparse
from pathlib import Path

import hybridvit
from hybridvit.data.scan import find_images
from hybridvit.data.scenes import write_detection
from hybridvit.errors import ImageDecodeError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of photos with boxes, and masks if there are any")
    parser.add_argument("--model", default="fastvit_sa12", help="for photos: any backbone, ours or one of timm's")
    parser.add_argument(
        "--head",
        default="",
        help="for photos: dino, ...; by default mask_rcnn, or faster_rcnn where not all have masks",
    )
    parser.add_argument("--epochs", type=int, default=2, help="passes over the training pictures; better with more")
    parser.add_argument("--scenes", type=int, default=400, help="to draw and train on, where there are no photos")
    parser.add_argument("--output", default="runs/example-detect", help="folder of the run and of the drawn answers")
    options = parser.parse_args()

    keys: dict[str, object] = {"schedule.epochs": options.epochs, "output": options.output}
    if options.photos:
        recipe, root = "detect", options.photos
        keys |= {"model": options.model, "pretrained": True, "head": options.head}
    else:
        recipe, root = "detect_scenes", Path(f"{options.output}-scenes")
        write_detection(root, train=options.scenes, val=40)  # in COCO's layout
        keys |= {"schedule.warmup_epochs": 0.5}
    run = hybridvit.train(recipe, keys | {"data.source": "files", "data.root": str(root)})
    print(*run.summary(), sep="\n")

    found = find_images([root])
    shown = [path for path in found if "val" in path.relative_to(root).as_posix()] or found
    for path, answer in hybridvit.predict(run.model, shown[:6], pictures=run.folder / "drawn").items():
        said = [str(answer)] if isinstance(answer, ImageDecodeError) else answer.lines()
        print(path, *said, sep="\n  ")
    print(f"Drawn in {run.folder / 'drawn'}")


if __name__ == "__main__":  # loader processes run the top level again
    main()
