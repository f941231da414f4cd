"""`hybridvit corrupt`: an image folder as ImageNet-C has ImageNet, to be read many times."""

import sys
import time
from json import dumps
from pathlib import Path
from typing import Literal

from hybridvit.cli.progress import status_line
from hybridvit.errors import UsageError
from hybridvit.evaluate.corruptions.names import SEVERITIES, checked_severities, chosen
from hybridvit.stderr import remark

LINE_EVERY_SECONDS = 10.0


def corrupt(
    folder: str,
    output: Path,
    *,
    corruptions: list[str] | None = None,
    severities: list[int] | None = None,
    stored: Literal["jpeg", "raw"] = "jpeg",
    seed: int = 0,
    workers: int = 0,
    json: bool = False,
) -> None:
    """Write corrupted copies of an image folder, in the layout of ImageNet-C.

    The result is OUTPUT/<corruption>/<severity>/<class>/<file>, of 224 pixels as ImageNet-C's files are (shorter side
    to 256, centre). Equal options give equal files, with any number of workers. An interrupted run goes on with the
    same command; another seed, storage or folder of images is not mixed in. Needs hybridvit[robustness].

    Examples:
      hybridvit corrupt imagenet/val imagenet-c --workers 8
      hybridvit corrupt photos/test photos-c --corruptions noise frost --severities 1 3 5
      hybridvit corrupt photos/test photos-c-raw --stored raw

    Args:
        folder: folder of class folders with images.
        output: folder to write; new, empty, or begun with the same options.
        corruptions: names, or all (19), common (the 15 of the mean), noise, blur, weather, digital, extra; all by
            default.
        severities: from 1, the least, to 5; all by default.
        stored: jpeg: quality 85, as ImageNet-C's files are, which costs accuracy under noise; raw: PNG, every pixel.
        seed: of all that is random; each picture has numbers of its own.
        workers: processes that corrupt; 0 does it in this one.
        json: one line of JSON.
    """
    from hybridvit.data.listing import scan_folder
    from hybridvit.evaluate.corruptions.stored import write_corrupted

    names = chosen(["all"] if corruptions is None else corruptions)
    levels = checked_severities(SEVERITIES if severities is None else severities)
    if workers < 0:
        raise UsageError(f"--workers is {workers}, but it must be at least 0 (0: this process does the work).")
    listing = scan_folder(folder, say=remark)
    total = len(listing.paths) * len(names) * len(levels)
    done, began = 0, time.monotonic()
    last = began

    with status_line(in_logs=True) as show:

        def advance(count: int) -> None:
            nonlocal done, last
            done += count
            now = time.monotonic()
            if now - last >= (0.2 if sys.stderr.isatty() else LINE_EVERY_SECONDS):
                last = now
                show(f"{done:,} of {total:,} files, {(now - began) / done * (total - done) / 60:.0f} min left")

        written, there = write_corrupted(
            listing, output, names=names, severities=levels, stored=stored, seed=seed, workers=workers, advance=advance
        )
    if json:
        counts = {"num_written": written, "num_there": there, "corruptions": names, "severities": levels}
        print(dumps({"folder": folder, "output": str(output)} | counts))
        return
    print(
        f"{output}: {written:,} files written, {there:,} there already: {len(listing.paths):,} images × {len(names)} "
        f"corruptions × {len(levels)} severities"
    )
