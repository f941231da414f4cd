"""`hybridvit shard` and `hybridvit index`: image sets as tar files, for sets that are large or far away."""

import sys
from pathlib import Path

from hybridvit.cli.table import pairs
from hybridvit.data.listing import Listing, scan_folder
from hybridvit.data.scan import SPLITS, subfolders
from hybridvit.errors import DatasetError, UsageError
from hybridvit.stderr import remark


def shard(
    source: str,
    output: str,
    *,
    shard_mb: int = 128,
    seed: int = 0,
    val_share: float = 0.0,
) -> None:
    """Pack an image folder into tar files to train from.

    Files are copied byte for byte, in an order that mixes the classes. Training reads the result from a folder, or
    from a web server or S3 bucket once it is uploaded: --data.source shards --data.root FOLDER_OR_URL. The tar files
    have WebDataset's layout. The output appears complete or not at all.

    Examples:
      hybridvit shard imagenet shards                 imagenet/train/<class>/*, imagenet/val/<class>/*
      hybridvit shard photos shards --val_share 0.2   photos/<class>/*

    Args:
        source: folder of class folders, or of splits (train, val) that hold those.
        output: folder to write; it must not exist, or be empty.
        shard_mb: size of a tar file, in megabytes, about.
        seed: of the order in which files are packed.
        val_share: share of the images to hold out, in a split of their own, where the source has no splits.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from hybridvit.data.shards.write import check_output, leftovers, write_shards

    if shard_mb < 1:
        raise UsageError(
            f"--shard_mb is {shard_mb}, but a tar file has at least 1 megabyte. 64 to 512 suit most disks."
        )
    target = Path(output)
    check_output(target, Path(source))
    splits = _splits(Path(source), val_share)
    for path in leftovers(target):
        print(f"left over from a writer that was killed, if none is at work: {path}", file=sys.stderr)
    columns = (TextColumn("packing"), BarColumn(bar_width=None), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("packing", total=sum(len(listing.paths) for listing in splits.values()))
        done = write_shards(
            splits, target, shard_bytes=shard_mb * 1_000_000, seed=seed, advance=lambda count: bar.advance(task, count)
        )
    classes = len(next(iter(splits.values())).class_names)
    print(f"Wrote {target}: {classes:,} classes")
    print(pairs([(split or "images", f"{images:,} images in {shards:,} tar files") for split, shards, images in done]))


def index(folders: list[str], *, classes: str | None = None, label: str | None = None) -> None:
    """Write the index that tar files of WebDataset's layout need to be trained from.

    Each tar file is read once. `hybridvit shard` does this itself; use it for tar files from elsewhere.

    Examples:
      hybridvit index shards/train shards/val
      hybridvit index shards/train --classes names.txt --label class_id

    Args:
        folders: folders with .tar files, of one split each; each gets index.json and two arrays.
        classes: text file with one class name per line, from class 0 on; by default classes are named by their number.
        label: the key of the class in <key>.json, for samples without <key>.cls; by default label.
    """
    from hybridvit.data.shards.scan import index_folder

    names = _class_names(Path(classes)) if classes else None
    for folder in folders:
        count = index_folder(folder, class_names=names, label_key=label, say=remark)
        print(f"{folder}: {count:,} images indexed")


def _splits(source: Path, val_share: float) -> dict[str, Listing[int]]:
    """Split name -> images, with the class map of the first, the training split; "" where there are no splits."""
    if not 0 <= val_share <= 0.5:
        raise UsageError(f"--val_share is {val_share}, but it must lie between 0 and 0.5.")
    folders = subfolders(str(source))
    if not folders or not SPLITS.issuperset(name.lower() for name in folders):
        listing = scan_folder(source, say=remark)
        if not val_share:
            return {"": listing}
        train, val = listing.split(val_share, say=remark)
        return {"train": train, "val": val}
    if val_share:
        raise UsageError(
            f"--val_share is {val_share}, but {source} has splits already: {', '.join(folders)}. Leave it out, or give "
            "the folder of one split."
        )
    training = [name for name in folders if name.lower().startswith("train")]
    if len(training) != 1:
        raise DatasetError(
            f"{source} has the splits {', '.join(folders)}, but exactly one must be the training images, whose classes "
            "are those of all. Rename it to 'train', or pack one split at a time."
        )
    first = scan_folder(source / training[0], say=remark)
    others = [name for name in folders if name != training[0]]
    rest = {name: scan_folder(source / name, first.class_names, say=remark) for name in others}
    return {training[0]: first, **rest}


def _class_names(path: Path) -> tuple[str, ...]:
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--classes is {path}, which cannot be read as text: {error}. Check the path.") from error
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None or not names:
        fault = f"has '{twice}' twice" if twice else "is empty"
        raise UsageError(f"--classes is {path}, which {fault}. Write one name per line, each once.")
    return names
