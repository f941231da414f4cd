"""Images per second of the training loader against timm's, on the same JPEG folders, and its memory over epochs.

    python benchmarks/loader.py                    # both sets, 0 and 2 workers
    python benchmarks/loader.py --rounds 8 --workers 0 --cpu_time    # where others use the machine too

The pictures are crops of the two photos that ship with scikit-learn: one set of 500x375 as in ImageNet, one of
4000x3000 as phones take them (enlarged, with noise, so that a file has a phone's 3 to 5 MB). Both loaders crop to 224
px, with RandAugment m9-mstd0.5-inc1 and random erasing 0.25, in batches of 16. timm runs in both of its forms: with its
prefetcher, as its training script does (normalisation and erasing in the main process), and without. A measurement is
four epochs with the same workers.

Memory is the sum over the process and its workers (VmRSS), after each of several epochs.
"""

import argparse
import itertools
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from comparison import compare, report
from PIL import Image
from sklearn.datasets import load_sample_images
from timm.data import auto_augment, create_dataset, create_loader

from hybridvit.card import Preprocessing
from hybridvit.data.augment_config import AugmentConfig
from hybridvit.data.folder import ImageFolder
from hybridvit.data.loader import make_train_loader
from hybridvit.data.transforms import TrainTransform, posterize

BATCH = 16
EPOCHS = 4  # of one measurement, so that starting the workers weighs little, as in training
SIDE = 224
SETS = {"500x375": (128, (500, 375)), "4000x3000": (16, (4000, 3000))}  # name -> images, width and height
ERASING = 0.25
RAND_AUGMENT = "rand-m9-mstd0.5-inc1"


def write_photos(folder: Path, *, number: int, size: tuple[int, int]) -> Path:
    """Crops of two photos as JPEG files of that size, half of them in either of two classes."""
    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    chance = np.random.default_rng(0)
    for index in range(number):
        photo = photos[index % 2]
        share = chance.uniform(0.6, 1.0)
        width, height = int(photo.width * share), int(photo.width * share * size[1] / size[0])
        height = min(height, photo.height)
        left, top = (int(chance.integers(0, spare + 1)) for spare in (photo.width - width, photo.height - height))
        picture = photo.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
        if size[0] > 1000:
            noise = chance.normal(0, 6, (size[1], size[0], 1))
            picture = Image.fromarray((np.asarray(picture) + noise).clip(0, 255).astype(np.uint8))
        path = folder / ("china", "flower")[index % 2] / f"{index:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, quality=90)
    return folder


def ours(folder: Path, *, workers: int, layout: torch.memory_format, reduced_decode: bool) -> Callable[[], object]:
    """EPOCHS epochs with workers that are started once."""
    augment = AugmentConfig(rand_augment=RAND_AUGMENT, random_erasing=ERASING)
    preprocessing = Preprocessing(image_size=(SIDE, SIDE))
    transform = TrainTransform(augment, preprocessing, reduced_decode=reduced_decode)
    seeds = itertools.count()  # new random numbers in every pass, as timm draws them

    def run() -> None:
        images = ImageFolder(folder, transform=transform, training=True, seed=next(seeds))
        steps = len(images) // BATCH * EPOCHS
        loader = make_train_loader(images, batch_size=BATCH, num_steps=steps, workers=workers, layout=layout)
        for _ in loader:
            pass
        loader.close()

    return run


def theirs(folder: Path, *, workers: int, layout: torch.memory_format, prefetcher: bool) -> Callable[[], object]:
    """The same with timm; its training script brings each batch into the layout."""
    images = create_dataset("", root=str(folder), is_training=True)

    def run() -> None:
        loader = create_loader(
            images,
            input_size=(3, SIDE, SIDE),
            batch_size=BATCH,
            is_training=True,
            use_prefetcher=prefetcher,
            re_prob=ERASING,
            re_mode="pixel",
            auto_augment=RAND_AUGMENT,
            interpolation="bicubic",
            num_workers=workers,
            persistent_workers=workers > 0,
            device=torch.device("cpu"),
        )
        for _ in range(EPOCHS):
            for batch, _ in loader:
                batch.contiguous(memory_format=layout)

    return run


def memory_mb(pids: list[int]) -> float:
    """What these processes hold in memory now."""
    total_kb = 0
    for pid in pids:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        total_kb += next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    return round(total_kb / 1024, 1)


def memory_over_epochs(folder: Path, *, workers: int, epochs: int) -> list[float]:
    """Memory of the process and its workers after each epoch of one run, in MB."""
    transform = TrainTransform(AugmentConfig(), Preprocessing(image_size=(SIDE, SIDE)))
    images = ImageFolder(folder, transform=transform, training=True)
    per_epoch = len(images) // BATCH
    loader = make_train_loader(images, batch_size=BATCH, num_steps=per_epoch * epochs, workers=workers)
    after = []
    for step, _ in enumerate(loader, start=1):
        if step % per_epoch == 0:
            pids = [multiprocessing.current_process().pid, *(child.pid for child in multiprocessing.active_children())]
            after.append(memory_mb([pid for pid in pids if pid is not None]))
    loader.close()
    return after


def main() -> None:
    """Compare, then watch the memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--epochs", type=int, default=4, help="epochs of the memory measurement")
    parser.add_argument(
        "--cpu_time",
        action="store_true",
        help="processor time instead of elapsed time: for a machine that others use too; only without workers",
    )
    parser.add_argument(
        "--channels_last", action="store_true", help="batches in that layout, as training on a CPU wants"
    )
    parser.add_argument("--output", type=Path, help="write the JSON here too")
    arguments = parser.parse_args()
    if arguments.cpu_time and arguments.workers != [0]:
        parser.error("--cpu_time does not see the time of workers. Use --workers 0 with it.")
    layout = torch.channels_last if arguments.channels_last else torch.contiguous_format
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    torch.set_num_threads(1)  # the cores belong to the workers
    for name in ("Posterize", "PosterizeIncreasing", "PosterizeOriginal"):  # timm's own raises with Pillow 13
        auto_augment.NAME_TO_OP[name] = posterize
    results: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.sets:
            number, size = SETS[name]
            folder = write_photos(Path(temporary) / name, number=number, size=size)
            for workers in arguments.workers:
                candidates = {
                    "timm, prefetcher": partial(theirs, prefetcher=True),
                    "timm": partial(theirs, prefetcher=False),
                    "ours, whole decode": partial(ours, reduced_decode=False),
                    "ours": partial(ours, reduced_decode=True),
                }
                runs = {label: make(folder, workers=workers, layout=layout) for label, make in candidates.items()}
                title = (
                    f"{number} JPEGs of {name}, {workers} workers{', channels-last' if arguments.channels_last else ''}"
                )
                results[title] = compare(title, runs, rounds=arguments.rounds, warmup=1, clock=clock)
            if name == "500x375":
                after = memory_over_epochs(folder, workers=2, epochs=arguments.epochs)
                print(f"\nMemory after each epoch, process and 2 workers: {', '.join(f'{mb} MB' for mb in after)}")
                results["memory_mb_after_epochs"] = after
    report("loader", results, output=arguments.output)


if __name__ == "__main__":
    main()
