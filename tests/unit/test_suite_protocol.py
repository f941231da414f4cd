"""How images of suites are prepared, and that a FastViT's mCE is told in both ways that the paper leaves open."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from suite_folders import one_picture, validation

from hybridvit.card import ModelCard, Preprocessing
from hybridvit.data.decode import decode_image
from hybridvit.data.generated import GeneratedImages
from hybridvit.data.listing import Listing
from hybridvit.data.preprocess import cut
from hybridvit.errors import UsageError
from hybridvit.evaluate.corruptions.names import COMMON
from hybridvit.evaluate.corruptions.stored import OFFICIAL
from hybridvit.evaluate.suites.layout import Choice, Part, open_suite
from hybridvit.evaluate.suites.protocol import CLEAN_OF_C, chosen_protocols, clean_of_c, preprocessing_of
from hybridvit.evaluate.suites.run import Subject, evaluate_parts
from hybridvit.evaluate.suites.suites import SUITES
from hybridvit.evaluate.suites.summary import summary

PREPROCESSING = Preprocessing(image_size=(256, 256), crop_fraction=0.9, interpolation="bicubic")
FASTVIT = ModelCard(architecture="fastvit_sa12", preprocessing=PREPROCESSING)
FASTERVIT = ModelCard(
    architecture="fastervit_0", preprocessing=dataclasses.replace(PREPROCESSING, image_size=(224, 224))
)


def part_of(suite, corruption="", severity=0):
    return Part(
        suite=suite,
        title="/".join(filter(None, (suite, corruption, str(severity or "")))),
        identities=tuple(map(str, range(8))),
        right=np.arange(8)[:, None],
        subset=None,
        listing=Listing(root="", paths=(), labels=(), class_names=(), fingerprint="f"),
        samples=lambda preprocessing: GeneratedImages(length=8, num_classes=8),
        side_px=lambda: (224, 224),
        corruption=corruption,
        severity=severity,
    )


FOG, A, CLEAN = part_of("c", "fog", 3), part_of("a"), part_of(CLEAN_OF_C)


def any_size(size):
    return True


def only_256(size):
    return size == (256, 256)


@pytest.mark.parametrize(
    ("protocol", "part", "card", "takes", "expected"),
    [
        ("auto", A, FASTVIT, any_size, ("card",)),
        ("auto", FOG, FASTVIT, any_size, ("as-is", "resized")),
        ("auto", CLEAN, FASTVIT, any_size, ("as-is", "resized")),
        ("auto", part_of("c-bar", "sparkles", 1), FASTVIT, any_size, ("as-is",)),
        ("auto", FOG, FASTERVIT, any_size, ("as-is",)),
        ("auto", FOG, FASTVIT, only_256, ("resized",)),
        ("as-is", FOG, FASTVIT, any_size, ("as-is",)),
        ("resized", FOG, FASTVIT, any_size, ("resized",)),
        ("resized", A, FASTVIT, any_size, ("card",)),  # of images that are not cut yet it says nothing
        ("paper-fastvit", A, FASTVIT, any_size, ("paper-fastvit",)),
    ],
)
def test_each_suite_has_its_protocols(protocol, part, card, takes, expected):
    assert chosen_protocols(protocol, part, card, takes) == expected


def test_a_file_of_another_size_is_not_shown_images_as_they_are():
    with pytest.raises(UsageError, match=r"224x224, but a file takes another one alone\. Use --protocol resized"):
        chosen_protocols("as-is", FOG, FASTVIT, only_256)


def test_a_protocol_is_what_it_is_said_to_be():
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8))
    corrupted = photo.crop((0, 0, 224, 224))
    as_is = cut(corrupted, preprocessing_of("as-is", PREPROCESSING, FOG))
    assert np.array_equal(as_is, corrupted)
    resized = cut(corrupted, preprocessing_of("resized", PREPROCESSING, FOG))
    assert np.array_equal(resized, corrupted.resize((256, 256), Image.Resampling.BICUBIC))
    paper = cut(photo, preprocessing_of("paper-fastvit", PREPROCESSING, A))
    short = int(256 / 224 * 256)
    whole = photo.resize((int(short * 400 / 300), short), Image.Resampling.BICUBIC)
    left, top = (round((side - 256) / 2) for side in whole.size)
    assert np.array_equal(paper, whole.crop((left, top, left + 256, top + 256)))


def test_the_clean_images_of_c_are_cut_as_the_corrupted_ones(tmp_path):
    picture = one_picture(tmp_path / "picture")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)).save(picture)
    clean = validation(tmp_path / "val", picture)
    (part,) = open_suite(SUITES["imagenet"], clean, (), Choice(share=0.001))
    of_c = clean_of_c(part)
    (drawn,) = (of_c.samples(preprocessing_of("as-is", PREPROCESSING, of_c)).draw(0, 0).image,)
    expected = cut(decode_image(part.listing.paths[0]), OFFICIAL)
    assert torch.equal(drawn, torch.from_numpy(np.array(expected)).permute(2, 0, 1))


def test_both_ways_have_a_row_each_with_their_own_clean_error(tmp_path):
    parts = [part_of("c", name, level) for name in COMMON for level in range(1, 6)] + [CLEAN]
    asked = []

    def answer(batch):
        asked.append(len(batch.samples))
        wrong = len(asked) % 3
        return {"logits": np.eye(8, dtype=np.float32)[(batch.samples.numpy() + (batch.samples.numpy() < wrong)) % 8]}

    def subject(path, takes):
        return Subject(path=path, digest=path, card=FASTVIT, runtime="any", answer=answer, takes_size=takes)

    subjects = [subject("model", any_size), subject("exported", only_256)]
    rows = summary(evaluate_parts(subjects, parts, tmp_path), whole=True)
    found = {(row["suite"], row["protocol"], row["file"]): row for row in rows}
    assert list(found) == [
        *(("c", "as-is", "model"), ("c", "resized", "model"), ("c", "resized", "exported")),
        *((CLEAN_OF_C, "as-is", "model"), (CLEAN_OF_C, "resized", "model"), (CLEAN_OF_C, "resized", "exported")),
    ]
    for (suite, protocol, file), row in found.items():
        if suite == "c":
            assert row["clean_error"] == 1 - found[CLEAN_OF_C, protocol, file]["top1"]
            assert row["published"] == {"FastViT Table 7": 62.2}
    ours, theirs = (found["c", "resized", file]["top1"] for file in ("model", "exported"))
    assert found["c", "resized", "exported"]["against_first"]["top1"] == pytest.approx(theirs - ours)
