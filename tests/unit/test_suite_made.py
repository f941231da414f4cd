"""ImageNet-C made of the clean images as they are answered: equal to the copies that `hybridvit corrupt` writes."""

import dataclasses
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from suite_folders import one_picture, validation

from hybridvit.card import ModelCard, Preprocessing
from hybridvit.data.folder import ImageFolder
from hybridvit.data.transforms import EvalTransform
from hybridvit.errors import DatasetError, UsageError
from hybridvit.evaluate.corruptions.names import COMMON
from hybridvit.evaluate.suites.layout import Choice, open_suite
from hybridvit.evaluate.suites.options import MADE, SuiteOptions
from hybridvit.evaluate.suites.run import Subject, evaluate_parts
from hybridvit.evaluate.suites.suites import SUITES, named_suites
from hybridvit.evaluate.suites.summary import summary

CARD = ModelCard(architecture="fastervit_debug", preprocessing=Preprocessing(image_size=(32, 32)))
ONE = 0.001  # of 1,000 images


@pytest.fixture(scope="module", autouse=True)
def _package():
    pytest.importorskip("imagecorruptions", reason="the extra 'robustness' is not installed", exc_type=ImportError)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    picture = one_picture(tmp_path_factory.mktemp("picture"))
    rows, columns = np.mgrid[:240, :300]
    waves = [np.sin(rows / (9 + 4 * channel)) + np.cos(columns / (7 + 5 * channel)) for channel in range(3)]
    Image.fromarray((np.stack(waves, -1) * 50 + 128).astype(np.uint8)).save(picture, quality=95)
    return validation(tmp_path_factory.mktemp("clean") / "val", picture)


def made(clean, said=None, **choice):
    (_, (suite, folder)) = named_suites([f"imagenet={clean}", MADE], None)
    return open_suite(suite, folder, (), Choice(share=ONE, **choice), say=[].append if said is None else said.append)


def from_folder(parts, output, stored):
    """The same parts, whose images `hybridvit corrupt` has written."""
    from hybridvit.evaluate.corruptions.stored import target_name, write_corrupted

    names = tuple(dict.fromkeys(part.corruption for part in parts))
    write_corrupted(parts[0].listing, output, names=names, severities=(1, 2, 3, 4, 5), stored=stored)
    found = []
    for part in parts:
        folder = output / part.corruption / str(part.severity)
        paths = tuple(str(folder / target_name(name, stored)) for name in part.identities)
        listing = dataclasses.replace(part.listing, paths=paths, fingerprint=stored)

        def samples(preprocessing, listing=listing):
            return ImageFolder(listing, transform=EvalTransform(preprocessing))

        found.append(dataclasses.replace(part, listing=listing, samples=samples, made=""))
    return found


def row_of(parts, folder):
    """Answers that are right or not by a check sum of the pixels: another pixel is another answer, half of the time."""

    def answer(batch):
        sums = [zlib.crc32(image.tobytes()) % 2 for image in batch.inputs.numpy()]
        return {"logits": np.eye(1000, dtype=np.float32)[parts[0].right[batch.samples.numpy(), 0] - sums]}

    subject = Subject(path="m", digest="m", card=CARD, runtime="torch", answer=answer, takes_size=lambda size: True)
    (row,) = summary(evaluate_parts([subject], parts, folder), whole=True)
    return row


def test_all_versions_are_made(clean):
    said = []
    parts = made(clean, said)
    assert said == ["c: 75 corrupted images are made, some 0.0 hours of one core for each preparation."]
    assert [part.title for part in parts] == [f"c/{name}/{level}" for name in COMMON for level in range(1, 6)]


FEW = ("gaussian_noise", "contrast", "pixelate")


@pytest.mark.parametrize("only", [FEW, pytest.param((), marks=pytest.mark.nightly)], ids=["few", "all"])
def test_errors_and_mce_are_those_of_the_folders_that_corrupt_writes(tmp_path, clean, only):
    parts = made(clean, only=only)
    ours = row_of(parts, tmp_path / "ours")
    theirs = row_of(from_folder(parts, tmp_path / "c", "jpeg"), tmp_path / "theirs")
    assert 0 < ours["mean_error"] < 1
    assert ours["errors"] == theirs["errors"]
    assert ours.get("mce") == theirs.get("mce")
    assert ("mce" in ours) == (not only)
    assert (ours["protocol"], theirs["protocol"]) == ("as-is, made on the fly, JPEG 85", "as-is")


@pytest.mark.parametrize("stored", ["jpeg", "raw"])
def test_pixels_are_those_of_the_folders_in_either_storage(tmp_path, clean, stored):
    parts = made(clean, only=("gaussian_noise",), stored=stored)
    written = from_folder(parts, tmp_path / "c", stored)
    as_is = dataclasses.replace(CARD.preprocessing, image_size=parts[0].side_px(), crop_fraction=1.0)
    for ours, theirs in zip(parts, written, strict=True):
        images = [part.samples(as_is).draw(0, 0).image for part in (ours, theirs)]
        assert images[0].shape == (3, 224, 224)
        assert np.array_equal(images[0], images[1])


def test_compression_changes_pixels_and_is_said(clean):
    (jpeg, *_), (raw, *_) = (made(clean, only=("fog",), stored=stored) for stored in ("jpeg", "raw"))
    images = [part.samples(CARD.preprocessing).draw(0, 0).image for part in (jpeg, raw)]
    assert not np.array_equal(images[0], images[1])
    assert jpeg.listing.fingerprint != raw.listing.fingerprint  # neither is taken for the other when a run goes on
    assert (jpeg.made, raw.made) == ("made on the fly, JPEG 85", "made on the fly, not compressed")


def test_what_cannot_be_made_is_said_before_the_work(clean):
    with pytest.raises(UsageError, match=r"nothing says where they lie\. Write imagenet=FOLDER before it"):
        named_suites([MADE], None)
    with pytest.raises(DatasetError, match="--only names 'frosty'"):
        made(clean, only=("frosty",))
    with pytest.raises(UsageError, match=r"--stored is of c=on-the-fly, which is not among --suites"):
        SuiteOptions(suites=["c=folder"], stored="raw").check()
    SuiteOptions(suites=["imagenet=x", MADE], stored="raw").check()


def test_the_clean_images_may_lie_below_a_root(tmp_path):
    (tmp_path / "val").mkdir()
    ((suite, folder),) = named_suites([MADE], tmp_path)
    assert (suite.layout, suite.name, folder) == ("made", "c", Path(tmp_path / "val"))
    assert SUITES["c"].layout == "corruptions"
