"""What the documents name: small models, pictures and data sets that stand in for `photo.jpg`, `my_coco` and the like.

One table, `STAND_INS`, says what a name stands for. A document that speaks of something else needs a row, or better one
of these names.
"""

import dataclasses
import os
import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import mano_stand_in
import numpy as np
import torch
from bench_results import result, row
from detectors import RCNN
from exported import exported
from freihand_sets import write_freihand
from PIL import Image
from segment_sets import write_set
from trained_like import trained_like
from videos import write_video

import hybridvit
from hybridvit.card import ModelCard
from hybridvit.checkpoints import load
from hybridvit.data.scenes import CATEGORY_IDS, CLASSES, scene, write_detection, write_segmentation
from hybridvit.export.options import ExportOptions
from hybridvit.export.pipeline import export
from hybridvit.recipe.file import load_recipe, recipe_names, recipe_text

GOLDEN = Path(__file__).parent / "golden"
PHOTOS = ("ant", "bee", "cat", "dog", "emu", "fox")
DIGITS = tuple("0123456789")
SPLITS = ("train", "val", "test")


def _save(path: Path, names: tuple[str, ...], **creation: Any) -> None:
    torch.manual_seed(0)
    model = trained_like(hybridvit.create_model("fastvit_debug", num_classes=len(names), **creation))
    facts = {"category_ids": CATEGORY_IDS} if creation.get("task") == "detect" else {}
    assert isinstance(model.card, ModelCard)
    model.card = dataclasses.replace(model.card, class_names=names, class_facts=facts)
    path.parent.mkdir(parents=True, exist_ok=True)
    hybridvit.save_checkpoint(model, path)


def classifier(path: Path) -> None:
    """Of the digits where their name is in the path, else of the photos."""
    _save(path, DIGITS if _is_of_digits(path) else PHOTOS)


def labeller(path: Path) -> None:
    _save(path, PHOTOS, task="multilabel")


def segmenter(path: Path) -> None:
    _save(path, ("ground", *CLASSES), task="segment", head="semantic_fpn", image_size=64)


def detector(path: Path) -> None:
    _save(path, CLASSES, task="detect", head="mask_rcnn", head_options=RCNN, image_size=96)


def hand(path: Path) -> None:
    torch.manual_seed(0)
    model = hybridvit.create_model("fastvit_debug", task="hand", head_options={"assets": "generated"}, image_size=32)
    path.parent.mkdir(parents=True, exist_ok=True)
    hybridvit.save_checkpoint(model, path)


def exported_classifier(path: Path, **options: Any) -> None:
    checkpoint = path.with_name(f"of-{path.stem}.safetensors")
    _save(checkpoint, DIGITS if _is_of_digits(path) else PHOTOS)
    to = "executorch" if path.suffix == ".pte" else "onnx"
    export(load(checkpoint), path, to=to, options=ExportOptions(**options))
    checkpoint.unlink()


def features(path: Path) -> None:
    exported_classifier(path, returns="features")


def int8(path: Path) -> None:
    shutil.move(exported("small-int8", path.parent), path)


def lite(path: Path) -> None:
    shutil.copy(GOLDEN / "litert.tflite", path)


def _is_of_digits(path: Path) -> bool:
    return any(word in path.as_posix() for word in ("digits", "demo"))


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(scene(len(path.stem)).pixels).save(path)


def pictures(folder: Path) -> None:
    for number, kind in enumerate(("jpg", "png", "jpg", "png")):
        picture(folder / f"{number}.{kind}")


def video(path: Path) -> None:
    write_video(path, range(0, 60, 10))


def photos(root: Path) -> None:
    """Folders of classes in each split, and tables of the same pictures: one label, several, another column."""
    for split in SPLITS:
        classes(root / split, PHOTOS)
        rows = ["path,label,labels,diagnosis"]
        for path in sorted((root / split).rglob("*.png")):
            name = path.parent.name
            rows.append(f"{path.relative_to(root).as_posix()},{name},{name},{name}")
        (root / f"{split}.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    shutil.copy(root / "train.csv", root / "all.csv")


def classes(folder: Path, names: tuple[str, ...], per_class: int = 6) -> None:
    """folder/<class>/<number>.png, all different."""
    for label, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            dice = np.random.default_rng([label, number])
            pixels = dice.integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def class_folders(root: Path) -> None:
    """The splits that are trained and validated on."""
    for split in SPLITS[:2]:
        classes(root / split, PHOTOS)


def digits(root: Path) -> None:
    """Numbered through as the digits are: test/7/0007.png is a seven."""
    for split in ("train", "test"):
        for number in range(20):
            picture(root / split / DIGITS[number % 10] / f"{number:04d}.png")


def shards(root: Path) -> None:
    """Tar files of two splits, and the folder that they were made of beside them for a moment."""
    from shard_sets import pack

    source = root.with_name("of-shards")
    class_folders(source)
    root.mkdir()
    for split in SPLITS[:2]:
        pack(source / split, root / split)
    shutil.rmtree(source)


def tars(root: Path) -> None:
    """Tar files as others write them, with the class in a key of a JSON file."""
    from shard_sets import png, write_tar

    members: dict[str, bytes] = {}
    for number in range(6):
        members[f"{number}.png"] = png(number)
        members[f"{number}.json"] = f'{{"class_id": {number % 2}}}'.encode()
    write_tar(root / "train/0.tar", members)


def hub_set(root: Path) -> None:
    """Two splits as `save_to_disk` of the library datasets writes them."""
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(PHOTOS))})
    source = root.with_name("of-set")
    class_folders(source)
    splits = {}
    for split, name in (("train", "train"), ("val", "validation")):
        files = sorted((source / split).rglob("*.png"))
        images = [{"bytes": path.read_bytes(), "path": path.name} for path in files]
        rows = {"image": images, "label": [PHOTOS.index(path.parent.name) for path in files]}
        splits[name] = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict(splits).save_to_disk(root)
    shutil.rmtree(source)


def masks(root: Path) -> None:
    write_segmentation(root, train=16, val=4)


def ade20k(root: Path) -> None:
    """In which 0 is no class."""
    write_set(root, "ADE20K")


def boxes(root: Path) -> None:
    write_detection(root, train=8, val=4)


def yolo(root: Path) -> None:
    """One box in each picture."""
    for split in SPLITS[:2]:
        for number in range(4):
            picture(root / f"images/{split}/{number}.png")
            (root / f"labels/{split}").mkdir(parents=True, exist_ok=True)
            (root / f"labels/{split}/{number}.txt").write_text("0 0.5 0.5 0.4 0.3\n", encoding="utf-8")
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [disc]\n", encoding="utf-8")


def hands(root: Path) -> None:
    for split in ("training", "evaluation"):
        write_freihand(root, split=split, versions=4 if split == "training" else 1)


def mano(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(mano_stand_in.dumped(mano_stand_in.content(mano_stand_in.in_manos_order())))


def measurement(path: Path) -> None:
    """A result of `hybridvit bench`."""
    path.write_text(result(row((1.0, 1.1, 1.2))).json() + "\n", encoding="utf-8")


def table_of_pictures(path: Path) -> None:
    from pyarrow import Table, parquet

    picture(path.with_name("0.png"))
    parquet.write_table(Table.from_pydict({"image": [path.with_name("0.png").read_bytes()] * 3}), path)


def run_folder(folder: Path) -> None:
    """A run of the recipe of that name, of which the recipe alone is there."""
    folder.mkdir(parents=True, exist_ok=True)
    name = folder.name if folder.name in recipe_names() else "folder"
    (folder / "recipe.yaml").write_text(recipe_text(load_recipe(name, ["--data.root", "imagenet"])), encoding="utf-8")


def words(path: Path) -> None:
    path.write_text("\n".join(PHOTOS) + "\n", encoding="utf-8")


STAND_INS: tuple[tuple[str, Callable[[Path], None]], ...] = (  # the first that fits; what lies in a folder is behind it
    ("runs/data/digits", digits),
    ("runs/data/mnist_5k", digits),
    ("runs/data/hands", hands),
    ("FreiHAND*", hands),
    ("photos", photos),
    ("holiday", pictures),
    ("more", pictures),
    ("shards", shards),
    ("more-shards", tars),
    ("OWNER/NAME", hub_set),
    ("my-set", hub_set),
    ("imagenet", class_folders),
    ("my_photos", masks),
    ("scenes", masks),
    ("ADE20K", ade20k),
    ("runs/data/scenes-segment", masks),
    ("runs/data/scenes-detect", boxes),
    ("my_coco", boxes),
    ("coco", boxes),
    ("my_yolo", yolo),
    ("*-int8.onnx", int8),
    ("features.onnx", features),
    ("*.onnx", exported_classifier),
    ("*.pte", exported_classifier),
    ("*.tflite", lite),
    ("*multilabel*.safetensors", labeller),
    ("*segment*.safetensors", segmenter),
    ("*detect*.safetensors", detector),
    ("*hand*.safetensors", hand),
    ("*.safetensors", classifier),
    ("*MANO*.pkl", mano),
    ("*.mp4", video),
    ("*.jpg", picture),
    ("*.png", picture),
    ("*.tif", picture),
    ("*.parquet", table_of_pictures),
    ("phone.json", measurement),
    ("earlier.json", measurement),
    ("before.json", measurement),
    ("names.txt", words),
    ("runs/*", run_folder),
)


class StandIns:
    """Makes what is named, once for all pages, and puts a copy where it is looked for."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache

    def provide(self, named: str, folder: Path) -> None:
        """Make sure of `named`, a path below `folder`, if it or a folder above it is in the table and not there yet."""
        path = Path(named)
        if path.is_absolute() or named.startswith(".") or ".." in path.parts or (folder / path).exists():
            return
        for pattern, make in STAND_INS:
            for place in (path, *path.parents):
                if fnmatch(place.as_posix(), pattern):
                    if not (folder / place).exists():
                        self._copy(place, make, folder / place)
                    if fnmatch(place.as_posix(), "runs/*/model.*"):
                        run_folder((folder / place).parent)  # a run's, so that another run may take its place
                    return

    def _copy(self, place: Path, make: Callable[[Path], None], target: Path) -> None:
        made = self._cache / place
        if not made.exists():
            made.parent.mkdir(parents=True, exist_ok=True)
            make(made)
        target.parent.mkdir(parents=True, exist_ok=True)
        if made.is_dir():
            shutil.copytree(made, target, copy_function=os.link)
        else:
            shutil.copy(made, target)
