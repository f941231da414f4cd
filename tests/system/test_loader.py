"""Every run of the same step sees the same samples, however many processes and workers there are."""

import logging
import multiprocessing
import os
import pickle
import random
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from fresh import ENVIRONMENT, command
from PIL import Image
from timm.data import create_transform

from hybridvit.batch import Batch, Sample
from hybridvit.card import Preprocessing
from hybridvit.data.augment_config import AugmentConfig
from hybridvit.data.decode import decode_image
from hybridvit.data.folder import ImageFolder
from hybridvit.data.generated import GeneratedImages
from hybridvit.data.loader import lost_worker, make_eval_loader, make_train_loader
from hybridvit.data.order import EvalOrder, TrainOrder
from hybridvit.data.seeding import seeded
from hybridvit.data.transforms import EvalTransform, TrainTransform
from hybridvit.errors import DatasetError, ImageDecodeError, UsageError

SMALL = Preprocessing(image_size=(8, 8), crop_fraction=1.0)


def numbers(order: TrainOrder | EvalOrder) -> list[list[int]]:
    return [[key.number for key in batch] for batch in order]


def test_an_epoch_shows_every_sample_once_but_the_dropped_ones():
    order = TrainOrder(50, batch_size=8, num_steps=12, seed=3)
    assert (order.steps_per_epoch, order.dropped_per_epoch, len(order)) == (6, 2, 12)
    first, second = numbers(order)[:6], numbers(order)[6:]
    for epoch in (first, second):
        shown = [number for batch in epoch for number in batch]
        assert len(set(shown)) == len(shown) == 48
    assert first != second
    assert [{key.epoch for key in batch} for batch in order] == [{0}] * 6 + [{1}] * 6


def test_the_order_follows_from_the_seed():
    assert numbers(TrainOrder(50, batch_size=8, num_steps=6)) == numbers(TrainOrder(50, batch_size=8, num_steps=6))
    assert numbers(TrainOrder(50, batch_size=8, num_steps=6)) != numbers(
        TrainOrder(50, batch_size=8, num_steps=6, seed=1)
    )


@pytest.mark.parametrize("first_step", [0, 1, 5, 6, 7, 14])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_run_goes_on_from_any_step(first_step, accumulate):
    whole = list(TrainOrder(50, batch_size=2, accumulate=accumulate, num_steps=14))
    rest = list(TrainOrder(50, batch_size=2, accumulate=accumulate, num_steps=14, first_step=first_step))
    assert rest == whole[first_step * accumulate :]


@pytest.mark.parametrize(("world_size", "accumulate"), [(1, 4), (2, 2), (4, 1), (1, 1), (2, 1)])
def test_a_step_has_the_same_samples_on_any_number_of_processes(world_size, accumulate):
    batch_size = 16 // (world_size * accumulate)
    reference = [sorted(batch) for batch in numbers(TrainOrder(100, batch_size=16, num_steps=9))]
    ranks = [
        numbers(
            TrainOrder(100, batch_size=batch_size, accumulate=accumulate, num_steps=9, rank=rank, world_size=world_size)
        )
        for rank in range(world_size)
    ]
    assert {len(batch) for rank in ranks for batch in rank} == {batch_size}
    for step, expected in enumerate(reference):
        micro_batches = [rank[step * accumulate : (step + 1) * accumulate] for rank in ranks]
        assert sorted(number for rank in micro_batches for batch in rank for number in batch) == expected


def sides(batches: list[Batch]) -> list[int]:
    assert all(batch.inputs.shape[2] == batch.inputs.shape[3] for batch in batches)
    return [batch.inputs.shape[3] for batch in batches]


@pytest.mark.parametrize("source", ["generated", "folder"])
def test_the_size_of_a_steps_images_follows_from_seed_and_step_alone(root, source):
    def images(seed: int = 0) -> GeneratedImages | ImageFolder:
        if source == "folder":
            return train_images(root, sizes=(8, 12, 16), seed=seed)
        return GeneratedImages(length=24, sizes=(8, 12, 16), seed=seed, training=True)

    whole = list(make_train_loader(images(), batch_size=8, num_steps=12))
    assert set(sides(whole)) == {8, 12, 16}
    assert sides(list(make_train_loader(images(seed=1), batch_size=8, num_steps=12))) != sides(whole)
    loader = make_train_loader(images(), batch_size=8, num_steps=12, first_step=5, workers=2)
    assert equal(list(loader), whole[5:])
    loader.close()
    for rank in range(2):  # of two processes with two micro-batches each
        shared = list(make_train_loader(images(), batch_size=2, accumulate=2, num_steps=12, rank=rank, world_size=2))
        assert sides(shared[::2]) == sides(shared[1::2]) == sides(whole)
    assert images().draw(0, 3).image.shape == images().draw(7, 5).image.shape  # neither epoch nor sample matters


@pytest.mark.parametrize("num_samples", [1, 7, 8, 9, 31])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_sees_every_sample_once_over_all_processes(num_samples, world_size):
    orders = [EvalOrder(num_samples, batch_size=4, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert [len(numbers(order)) for order in orders] == [len(order) for order in orders]
    shown = [number for order in orders for batch in numbers(order) for number in batch]
    assert sorted(shown) == list(range(num_samples))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"batch_size": 0}, UsageError, "batch_size is 0"),
        ({"batch_size": 4, "accumulate": 0}, UsageError, "accumulate is 0"),
        ({"batch_size": 4, "rank": 2, "world_size": 2}, UsageError, "rank is 2, .*between 0 and world_size - 1"),
        ({"batch_size": 4, "first_step": 9}, UsageError, r"first_step is 9, .*between 0 and num_steps \(8\)"),
        (
            {"batch_size": 8, "accumulate": 2},
            DatasetError,
            r"One step takes 16 samples \(8 per micro-batch x 2 .*set has 10\. Use a total batch of at most 10",
        ),
    ],
)
def test_an_impossible_order_is_refused(options, error, words):
    with pytest.raises(error, match=words):
        TrainOrder(10, num_steps=8, **options)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(24):
        path = tmp_path / f"{'cat' if number < 12 else 'dog'}/{number:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.effect_noise((12, 12), 90).convert("RGB").save(path)
    return tmp_path


def train_images(root: Path, **options: object) -> ImageFolder:
    return ImageFolder(root, transform=TrainTransform(AugmentConfig(), SMALL), training=True, **options)


def equal(ours: list[Batch], theirs: list[Batch]) -> bool:
    pairs = zip(ours, theirs, strict=True)
    return all(torch.equal(a, b) for ours, theirs in pairs for a, b in zip(ours[:3], theirs[:3], strict=True))


def test_workers_and_resumption_change_no_pixel(root):
    images = train_images(root)
    whole = list(make_train_loader(images, batch_size=5, num_steps=10))
    torch.manual_seed(99)  # whatever the global generators are at
    loader = make_train_loader(images, batch_size=5, num_steps=10, first_step=3, workers=2)
    assert equal(list(loader), whole[3:])
    loader.close()
    assert whole[0].inputs.shape == (5, 3, 8, 8)
    assert whole[0].targets.tolist() == [images.labels[number] for number in whole[0].samples.tolist()]


def test_a_pass_leaves_the_global_generators_alone():
    loader = make_eval_loader(GeneratedImages(length=20), batch_size=8)
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    list(loader)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_passes_repeat_and_keep_their_workers(workers):
    images = GeneratedImages(length=21)
    loader = make_eval_loader(images, batch_size=8, workers=workers)
    first = list(loader)
    processes = {process.pid for process in multiprocessing.active_children()}
    next(iter(loader))  # an unfinished pass must not disturb the next
    assert equal(list(loader), first)
    assert {process.pid for process in multiprocessing.active_children()} == processes
    assert (loader.num_used, loader.num_total, len(loader)) == (21, 21, 3)
    loader.close()
    loader.close()
    assert not processes & {process.pid for process in multiprocessing.active_children()}
    with pytest.raises(ValueError, match="closed"):
        iter(loader)


def test_a_new_pass_ends_the_one_before():
    loader = make_eval_loader(GeneratedImages(length=32), batch_size=8)
    old = iter(loader)
    next(old)
    new = iter(loader)
    assert list(old) == []
    assert len(list(new)) == 4


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_file_ends_the_run_in_one_paragraph(root, workers):
    (root / "cat/03.png").write_bytes(b"")
    images = ImageFolder(root, transform=EvalTransform(SMALL))
    loader = make_eval_loader(images, batch_size=8, workers=workers)
    with pytest.raises(ImageDecodeError, match=r"03\.png.*empty \(0 bytes\).*on_bad_image") as caught:
        list(loader)
    assert "\n" not in str(caught.value)
    loader.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_leaves_bad_files_out_and_counts_them(root, caplog, workers):
    for name in ("cat/03.png", "dog/12.png", *(f"dog/{number}.png" for number in range(16, 24))):
        (root / name).write_bytes(b"")
    images = ImageFolder(root, transform=EvalTransform(SMALL), on_bad_image="skip")
    loader = make_eval_loader(images, batch_size=8, workers=workers)
    for _ in range(2):
        batches = list(loader)
        shown = torch.cat([batch.samples for batch in batches]).tolist()
        assert shown == [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15]
        assert (loader.num_used, loader.num_total) == (14, 24)
    assert len(loader.bad_images) == len(caplog.records) == 10  # each named once
    assert "03.png" in caplog.text
    loader.close()


def many(root: Path, count: int) -> Path:
    source = (root / "cat/00.png").read_bytes()
    for number in range(24, count):
        (root / f"dog/{number}.png").write_bytes(source)
    return root


def test_training_goes_on_with_one_bad_file_in_a_hundred(root, caplog):
    caplog.set_level(logging.WARNING)
    (many(root, 200) / "dog/100.png").write_bytes(b"")
    loader = make_train_loader(train_images(root, on_bad_image="skip"), batch_size=20, num_steps=20)
    batches = list(loader)
    assert [len(batch.targets) for batch in batches] == [20] * 20
    bad = str(root / "dog/100.png")
    assert list(loader.bad_images) == [bad]
    assert len(caplog.records) == 1
    assert loader.data.paths.index(bad) not in torch.cat([batch.samples for batch in batches])


def test_training_ends_above_one_percent_of_bad_files(root):
    many(root, 200)
    for number in (100, 101, 102):
        (root / f"dog/{number}.png").write_bytes(b"")
    loader = make_train_loader(train_images(root, on_bad_image="skip"), batch_size=20, num_steps=20)
    with pytest.raises(
        DatasetError, match=r"3 of 200 training images cannot be decoded, .*1%.*whole set.*\.png.*empty"
    ):
        list(loader)


def test_a_data_set_can_be_sent_to_a_spawned_worker(root):
    images = train_images(root)
    copy = pickle.loads(pickle.dumps(images))
    assert torch.equal(copy.draw(2, 7).image, images.draw(2, 7).image)


# torch raises its error from a signal handler, at any line: a file that is being opened there stays open
@pytest.mark.filterwarnings("ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning")
def test_a_killed_worker_is_explained():
    loader = make_eval_loader(GeneratedImages(length=4000), batch_size=4, workers=1)
    before = set(multiprocessing.active_children())
    batches = iter(loader)
    next(batches)
    (worker,) = set(multiprocessing.active_children()) - before
    try:  # torch raises its own error from a signal handler, so at any line and even after another
        try:
            os.kill(worker.pid, signal.SIGKILL)
            list(batches)
        finally:
            time.sleep(0.3)
    except (DatasetError, RuntimeError) as raised:
        error = raised if isinstance(raised, DatasetError) else lost_worker(raised)
    assert re.search(r"A process that loads images ended: .*\(/dev/shm\).*workers=0", str(error))
    loader.close()


class Broken(GeneratedImages):
    def draw(self, epoch: int, index: int, step: int = 0) -> Sample:
        raise EOFError("a fault of the data set")


def test_a_fault_inside_a_worker_is_not_taken_for_a_lost_worker():
    loader = make_eval_loader(Broken(length=16), batch_size=4, workers=1)
    with pytest.raises(EOFError, match="a fault of the data set"):
        list(loader)
    loader.close()


def test_no_words_of_an_error_make_a_lost_worker_while_all_live() -> None:
    loader = make_eval_loader(GeneratedImages(length=16), batch_size=4, workers=1)
    next(iter(loader))
    for error in (RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed."), ConnectionResetError()):
        assert lost_worker(error) is None
    loader.close()


def test_workers_outlive_sigterm_but_not_their_parent():
    process = subprocess.Popen(
        command("told_to_stop"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
    )
    workers = [int(pid) for pid in process.stdout.readline().split()]
    assert len(workers) == 2
    os.killpg(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert errors.splitlines()[-1] == "RuntimeError: ends with a traceback that keeps everything alive"
    assert process.returncode == 1
    time.sleep(0.1)
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_number_of_workers_below_zero_is_refused() -> None:
    with pytest.raises(UsageError, match="The number of workers is -1, but it must be at least 0"):
        make_eval_loader(GeneratedImages(length=20), batch_size=8, workers=-1)


def test_more_workers_than_cores_are_no_warning() -> None:  # which the tests turn into an error
    make_eval_loader(GeneratedImages(length=20), batch_size=8, workers=1 + (os.cpu_count() or 1)).close()


def test_a_batch_puts_the_callers_generators_back_once(root, monkeypatch):
    """And gives the pixels of samples drawn one by one."""
    images = train_images(root)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    batch = next(iter(make_train_loader(images, batch_size=8, num_steps=1)))
    assert torch.equal(torch.get_rng_state(), before)
    singles = [images[number][0] for number in batch.samples.tolist()]
    assert torch.equal(batch.inputs, torch.stack(singles))
    saved = []
    getstate = random.getstate
    monkeypatch.setattr(random, "getstate", lambda: saved.append(1) or getstate())
    list(make_train_loader(images, batch_size=8, num_steps=2))
    assert len(saved) == 2


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("fill", ["pixel", "const"])
def test_images_travel_as_bytes_and_arrive_to_the_last_bit(root: Path, fill: str, layout: torch.memory_format) -> None:
    """As timm's ToTensor, Normalize and RandomErasing make them, whatever the workers and the layout."""
    augment = AugmentConfig(rand_augment="", color_jitter=0.0, random_erasing=0.7, erasing_fill=fill)
    images = ImageFolder(root, transform=TrainTransform(augment, SMALL), training=True, seed=4)
    crop, distort, finish = create_transform(
        SMALL.image_size, is_training=True, separate=True, color_jitter=0.0, scale=augment.scale, ratio=augment.ratio,
        re_prob=0.7, re_mode=fill, mean=SMALL.mean, std=SMALL.std, interpolation=SMALL.interpolation,
    )  # fmt: skip
    loader = make_train_loader(images, batch_size=8, num_steps=2, seed=4, workers=2, layout=layout)
    num_erased = 0
    for batch in loader:
        assert batch.inputs.dtype == torch.float32
        assert batch.inputs.is_contiguous(memory_format=layout)
        for image, number in zip(batch.inputs, batch.samples.tolist(), strict=True):
            drawn = images.draw(0, number)
            assert drawn.image is not None
            assert drawn.image.dtype == torch.uint8
            num_erased += drawn.patch is not None
            with seeded("augment", 4, 0, number):
                assert torch.equal(image, finish(distort(crop(decode_image(images.paths[number])))))
    loader.close()
    assert 4 < num_erased < 16
