"""Shards: packing, the index, and the same samples as from the folder."""

import gc
import itertools
import json
import os
import pickle
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
from shard_sets import SMALL, pack, png, write_folder, write_tar

from hybridvit.cli.main import main
from hybridvit.cli.shard import shard
from hybridvit.data.augment_config import AugmentConfig
from hybridvit.data.folder import ImageFolder
from hybridvit.data.listing import scan_folder
from hybridvit.data.loader import make_train_loader
from hybridvit.data.order import Blocks, TrainOrder, permutation
from hybridvit.data.seeding import derive_seed
from hybridvit.data.shards import write as write_module
from hybridvit.data.shards.images import ShardImages
from hybridvit.data.shards.scan import index_folder
from hybridvit.data.shards.write import write_shards
from hybridvit.data.transforms import EvalTransform, TrainTransform
from hybridvit.errors import DatasetError, DiskFull, ImageDecodeError, UsageError

BLOCKS = Blocks(sizes=(5, 3, 7, 4, 6), window=2)
NUM_SAMPLES = 25


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "photos")


@pytest.fixture
def shards(folder: Path, tmp_path: Path) -> Path:
    return pack(folder, tmp_path / "shards")


def open_shards(root: Path, **options: object) -> ShardImages:
    return ShardImages(str(root), **{"transform": EvalTransform(SMALL), **options})


# order


def test_without_blocks_the_order_is_the_one_of_runs_before() -> None:
    generator = torch.Generator().manual_seed(derive_seed("order", 7, 3))
    assert permutation(10, seed=7, epoch=3).tolist() == torch.randperm(10, generator=generator).tolist()


def test_an_epoch_reads_whole_blocks_window_by_window_and_every_sample_once() -> None:
    order = permutation(NUM_SAMPLES, seed=1, epoch=0, blocks=BLOCKS).tolist()
    assert sorted(order) == list(range(NUM_SAMPLES))
    block_of = np.repeat(np.arange(5), BLOCKS.sizes)
    shuffled = BLOCKS.order(1, 0)
    place = 0
    for first in range(0, 5, 2):
        window = shuffled[first : first + 2]
        count = sum(BLOCKS.sizes[block] for block in window)
        assert {int(block_of[sample]) for sample in order[place : place + count]} == set(window)
        place += count
    assert [block_of[sample] for sample in order[:8]] != sorted(block_of[sample] for sample in order[:8])


def test_the_order_with_blocks_depends_on_seed_and_epoch_alone() -> None:
    orders = {
        (seed, epoch): tuple(permutation(NUM_SAMPLES, seed=seed, epoch=epoch, blocks=BLOCKS).tolist())
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(set(orders.values())) == 4
    assert len({tuple(BLOCKS.order(seed, epoch)) for seed in (0, 1) for epoch in range(4)}) > 4
    assert len({tuple(BLOCKS.order(0, epoch)) for epoch in range(4)}) > 1
    torch.manual_seed(5)
    assert tuple(permutation(NUM_SAMPLES, seed=0, epoch=1, blocks=BLOCKS).tolist()) == orders[0, 1]


def test_steps_have_the_same_samples_for_any_processes_and_start_anywhere() -> None:
    def steps(batch_size: int, accumulate: int, world_size: int, first_step: int = 0) -> list[list[tuple[int, int]]]:
        found: list[list[tuple[int, int]]] = [[] for _ in range(first_step, 9)]
        for rank in range(world_size):
            order = TrainOrder(
                NUM_SAMPLES,
                batch_size=batch_size,
                accumulate=accumulate,
                rank=rank,
                world_size=world_size,
                num_steps=9,
                first_step=first_step,
                seed=3,
                blocks=BLOCKS,
            )
            for number, batch in enumerate(order):
                found[number // accumulate] += batch
        return [sorted(step) for step in found]

    alone = steps(8, 1, 1)
    assert steps(2, 2, 2) == alone
    assert steps(2, 1, 4) == alone
    assert steps(4, 2, 1, first_step=4) == alone[4:]


# the same as from the folder


def test_shards_hold_the_files_of_the_folder_byte_for_byte(folder: Path, shards: Path) -> None:
    files = ImageFolder(folder, transform=EvalTransform(SMALL))
    packed = open_shards(shards)
    assert packed.class_names == files.class_names
    assert len(packed.index.shards) > 3
    number = {os.path.relpath(path, folder): index for index, path in enumerate(files.paths)}
    for index, path in enumerate(packed.paths):
        same = number["/".join(path.split("/")[-2:])]
        assert packed.labels[index] == files.labels[same]
        assert packed.encoded(0, index) == Path(files.paths[same]).read_bytes()


def test_equal_seed_epoch_and_number_give_equal_tensors_from_folder_and_shards(folder: Path, shards: Path) -> None:
    packed = open_shards(shards, transform=TrainTransform(AugmentConfig(), SMALL), training=True, seed=5)
    listing = scan_folder(folder)
    order = [listing.paths.index(str(folder / "/".join(path.split("/")[-2:]))) for path in packed.paths]
    listing.__dict__.update(
        paths=tuple(listing.paths[each] for each in order), labels=tuple(listing.labels[each] for each in order)
    )
    files = ImageFolder(listing, transform=TrainTransform(AugmentConfig(), SMALL), training=True, seed=5)
    for index in range(len(files)):
        one, other = files.draw(3, index), packed.draw(3, index)
        assert torch.equal(one.image, other.image)
        assert (one.target, one.number) == (other.target, other.number)


def test_every_shard_mixes_the_classes(shards: Path) -> None:
    images = open_shards(shards)
    starts = images.index.starts
    kinds = [len(set(images.labels[int(a) : int(b)])) for a, b in itertools.pairwise(starts)]
    assert sum(kind > 1 for kind in kinds) >= len(kinds) - 1


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # it leaves its last file to the garbage collector
def test_webdataset_reads_the_shards(shards: Path) -> None:
    files = sorted(str(path) for path in shards.glob("*.tar"))
    read = {sample["__key__"]: sample for sample in webdataset.WebDataset(files, shardshuffle=False)}
    images = open_shards(shards)
    assert len(read) == len(images)
    for index in range(len(images)):
        sample = read[images.index.member(index).removesuffix(".png")]
        assert sample["png"] == images.encoded(0, index)
        assert int(sample["cls"]) == images.labels[index]
    gc.collect()


def test_the_loader_resumes_in_the_middle_of_an_epoch_with_any_workers(shards: Path) -> None:
    images = open_shards(shards, transform=TrainTransform(AugmentConfig(), SMALL), training=True, seed=2, window=2)
    straight = list(make_train_loader(images, batch_size=4, num_steps=9, seed=2))
    assert Counter(sample for batch in straight[:6] for sample in batch.samples.tolist()) == Counter(range(24))
    for workers in (0, 2):
        loader = make_train_loader(images, batch_size=4, num_steps=9, first_step=5, seed=2, workers=workers)
        resumed = list(loader)
        loader.close()
        assert all(
            torch.equal(one.inputs, other.inputs) and torch.equal(one.samples, other.samples)
            for one, other in zip(straight[5:], resumed, strict=True)
        )


def test_another_process_maps_the_index_and_is_sent_none_of_it(shards: Path) -> None:
    images = open_shards(shards)
    images[0]
    sent = pickle.dumps(images.index)
    assert images.index.rows.tobytes() not in sent
    again = pickle.loads(sent)
    assert [again.member(number) for number in range(24)] == [images.index.member(number) for number in range(24)]
    assert torch.equal(pickle.loads(pickle.dumps(images))[3][0], images[3][0])
    assert np.asarray(images.labels).tobytes() not in pickle.dumps(images.labels)


# bad files


def test_bad_files_in_shards_are_named_and_stood_in_for_as_in_folders(tmp_path: Path) -> None:
    members = {f"{number}.png": png(number) for number in range(6)} | {"2.png": png(2)[:60]}
    for number in range(6):
        members[f"{number}.cls"] = b"%d" % (number % 2)
    members = dict(sorted(members.items()))
    write_tar(tmp_path / "a.tar", members)
    index_folder(tmp_path)
    images = open_shards(tmp_path)
    with pytest.raises(ImageDecodeError, match=r"a\.tar/2\.png, image given as 60 bytes: PNG image is truncated"):
        images[2]
    skipping = open_shards(tmp_path, on_bad_image="skip", training=True, seed=1)
    sample = skipping.draw(0, 2)
    assert sample.image is not None
    assert sample.number != 2
    assert sample.bad[0].path.endswith("a.tar/2.png")
    assert open_shards(tmp_path, on_bad_image="skip").draw(0, 2).image is None


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_is_gone_or_cut_ends_the_run_even_where_bad_images_are_skipped(shards: Path, workers: int) -> None:
    images = open_shards(shards, training=True, on_bad_image="skip")
    first, second, *_ = sorted(shards.glob("*.tar"))
    first.unlink()
    os.truncate(second, 1000)
    with pytest.raises(DatasetError, match=r"shard-00001.tar has 1,000 bytes, but index.json was written for .* Copy"):
        images[int(images.index.starts[1])]
    loader = make_train_loader(images, batch_size=24, num_steps=1, workers=workers)
    with pytest.raises(DatasetError, match=r"^\S+shard-0000[01].tar (cannot be opened: No such file|has 1,000 bytes)"):
        list(loader)
    loader.close()


# the index


def test_without_an_index_the_error_names_the_command(shards: Path, tmp_path: Path) -> None:
    (shards / "index.json").unlink()
    with pytest.raises(DatasetError, match=rf"has no index.json.*Write it once: hybridvit index {shards}$"):
        open_shards(shards)
    with pytest.raises(DatasetError, match=r"gone, which is to hold shards, is no folder"):
        open_shards(tmp_path / "gone")


def test_damaged_indices_are_errors(shards: Path) -> None:
    good = (shards / "index.json").read_text()
    for text, message in (
        ("<html>", r"is no index of shards; it begins with '<html>'.*hybridvit index"),
        (json.dumps({"version": 1}), r"is no index of shards"),
        (good.replace('"version": 1', '"version": 9'), r"version 9, but this release reads version 1"),
        (good.replace('"num_samples": ', '"num_samples": 1'), r"do not fit together"),
    ):
        (shards / "index.json").write_text(text)
        with pytest.raises(DatasetError, match=message):
            open_shards(shards)
    (shards / "index.json").write_text(good)
    with (shards / "index-samples.npy").open("r+b") as file:
        file.seek(-3, os.SEEK_END)
        file.write(b"\x77")
    with pytest.raises(DatasetError, match=r"index-samples.npy is not the file that .*index.json was written with"):
        open_shards(shards)


def test_the_fingerprint_is_that_of_the_content(folder: Path, shards: Path, tmp_path: Path) -> None:
    first = open_shards(shards).fingerprint
    assert open_shards(shutil.copytree(shards, tmp_path / "copy")).fingerprint == first
    assert open_shards(pack(folder, tmp_path / "again")).fingerprint == first
    (folder / "bee/0.png").write_bytes(png(77))
    assert open_shards(pack(folder, tmp_path / "other")).fingerprint != first


def test_foreign_shards_are_indexed_by_number_and_by_name(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "one.tar",
        {"x/1.jpg": png(1), "x/1.cls": b"4\n", "x/1.txt": b"words", "x/2.json": b'{"label": 0}', "x/2.png": png(2)},
    )
    write_tar(tmp_path / "two.tar", {"3.json": b"{}", "3.seg.png": png(9), "4.webp": png(4), "4.cls": b"2"})
    told: list[str] = []
    assert index_folder(tmp_path, say=told.append) == 3
    images = open_shards(tmp_path)
    assert images.class_names == ("0", "1", "2", "3", "4")
    assert list(images.labels) == [4, 0, 2]
    assert [images.encoded(0, number) for number in range(3)] == [png(1), png(2), png(4)]
    assert told == [f"left out: 1 sample without an image, of {tmp_path}"]

    named = tmp_path / "named"
    write_tar(
        named / "a.tar", {"1.jpg": png(1), "1.json": b'{"class": "dog"}', "2.jpg": png(2), "2.json": b'{"class": 0}'}
    )
    index_folder(named, class_names=("cat", "dog"), label_key="class")
    assert list(open_shards(named).labels) == [1, 0]


def test_a_key_for_labels_that_no_sample_needs_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tar(tmp_path / "a.tar", {"1.jpg": png(1), "1.cls": b"1", "1.json": b'{"label": 0}'})
    for key in ("label", "class_id"):
        assert main(["index", str(tmp_path), "--label", key]) == 2
        assert f"--label is '{key}', a key of <key>.json, but every sample in {tmp_path} has" in capsys.readouterr().err
    assert not (tmp_path / "index.json").exists()
    assert main(["index", str(tmp_path)]) == 0
    assert list(open_shards(tmp_path).labels) == [1]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"1.jpg": b"x"}, r"'1' has neither \.cls nor \.json beside it \(it has jpg\).*Add the class number as 1\.cls"),
        (
            {"1.jpg": b"x", "1.cls": b"dog"},
            r"'1\.cls' begins with b'dog', but it must hold a class number\..*--classes",
        ),
        ({"1.jpg": b"x", "1.json": b'{"id": 3}'}, r"must hold a class number under 'label'.*--label KEY"),
        ({"1.jpg": b"x", "1.cls": b"-1"}, r"is -1, but classes are numbered from 0"),
        ({"1.jpg": b"x", "1.cls": b"9999999999"}, r"is 9999999999, but classes are numbered from 0 to 999,999"),
        ({"1.jpg": b"x", "1.png": b"y", "1.cls": b"1"}, r"2 images under the key '1' \(jpg, png\)"),
        ({"1.txt": b"x"}, r"has no images: no member there ends in"),
    ],
)
def test_unusable_foreign_shards_are_errors(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    write_tar(tmp_path / "a.tar", members)
    with pytest.raises(DatasetError, match=message):
        index_folder(tmp_path)
    assert not (tmp_path / "index.json").exists()


def test_cut_and_compressed_archives_are_errors(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", {"1.jpg": png(1, 40), "1.cls": b"1"})
    os.truncate(tar, 900)
    with pytest.raises(DatasetError, match=r"a\.tar is no whole tar file: .*Fetch or write it again"):
        index_folder(tmp_path)
    tar.rename(tmp_path / "a.tar.gz")
    with pytest.raises(DatasetError, match=r"no \.tar files\. a\.tar\.gz is compressed; unpack it"):
        index_folder(tmp_path)


def test_validation_labels_are_matched_by_class_name(tmp_path: Path) -> None:
    write_folder(tmp_path / "val", classes=("cat", "dog"), per_class=2)
    images = open_shards(pack(tmp_path / "val", tmp_path / "out"), class_names=("dog", "bee", "cat"))
    assert images.class_names == ("dog", "bee", "cat")
    assert Counter(images.labels) == {2: 2, 0: 2}
    with pytest.raises(DatasetError, match=r"has 1 class that the 2 known ones do not include: 'dog'"):
        open_shards(tmp_path / "out", class_names=("bee", "cat"))


# packing


def test_the_command_packs_splits_and_holds_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, count in (("train", 5), ("val", 2)):
        write_folder(tmp_path / "photos" / split, per_class=count)
    assert main(["shard", str(tmp_path / "photos"), str(tmp_path / "out")]) == 0
    assert "train  15 images in 1 tar files" in capsys.readouterr().out
    assert (len(open_shards(tmp_path / "out/train")), len(open_shards(tmp_path / "out/val"))) == (15, 6)
    held = ["shard", str(tmp_path / "photos/train"), str(tmp_path / "held"), "--val_share", "0.2"]
    assert main(held) == 0
    assert (len(open_shards(tmp_path / "held/train")), len(open_shards(tmp_path / "held/val"))) == (12, 3)
    assert main(held) == 2
    assert "exists and is not an empty folder" in capsys.readouterr().err
    assert main(["index", str(tmp_path / "out/train")]) == 0  # keeps the names
    assert open_shards(tmp_path / "out/train").class_names == ("bee", "cat", "dog")


def test_shards_are_of_the_size_asked_for(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "out", shard_bytes=12_000)
    sizes = [shard.num_bytes for shard in open_shards(tmp_path / "out").index.shards]
    assert len(sizes) == 5
    assert max(sizes) <= 2 * min(sizes)  # tar rounds up to 10,240


def test_names_that_would_be_one_key_stay_apart(tmp_path: Path) -> None:
    for number, name in enumerate(("a.png", "a.gif", "a.b.png", "a_b.png", "é.png")):
        (tmp_path / "photos/1.x").mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos/1.x" / name).write_bytes(png(number))
    images = open_shards(pack(tmp_path / "photos", tmp_path / "out"))
    members = {images.index.member(number): images.encoded(0, number) for number in range(5)}
    assert sorted(members) == ["1.x/a-2.png", "1.x/a.gif", "1.x/a_b-2.png", "1.x/a_b.png", "1.x/é.png"]
    assert len(set(members.values())) == 5


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_interrupted_packing_leaves_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    calls = []

    def fail(path: Path) -> object:
        calls.append(path)
        if len(calls) == 2:
            raise error
        return scan_shard(path)

    scan_shard = write_module.scan_shard
    monkeypatch.setattr(write_module, "scan_shard", fail)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DiskFull if isinstance(error, OSError) else KeyboardInterrupt):
        pack(folder, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


def test_a_disk_that_is_too_small_is_noticed_before_writing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_module.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 99))  # type: ignore[attr-defined]
    with pytest.raises(DiskFull, match=r"The shards take .* GB free\. Nothing was written"):
        write_shards({"": scan_folder(folder)}, tmp_path / "out", shard_bytes=8_000)


def test_a_source_without_one_training_split_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("val", "test"):
        write_folder(tmp_path / "photos" / split, per_class=1)
    with pytest.raises(DatasetError, match=r"has the splits test, val, but exactly one must be the training images"):
        shard(str(tmp_path / "photos"), str(tmp_path / "out"))
    with pytest.raises(UsageError, match=r"--shard_mb is 0"):
        shard(str(tmp_path / "photos"), str(tmp_path / "out"), shard_mb=0)


def test_shards_are_not_written_among_the_classes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shard", str(folder), str(folder / "shards")]) == 2
    assert f"{folder / 'shards'} lies in {folder}, whose folders are its classes" in capsys.readouterr().err
    assert not (folder / "shards").exists()
