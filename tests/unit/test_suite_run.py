"""Several answerers on the same images: restricted classes, measures, pairs, and what is kept."""

import dataclasses
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from sklearn.metrics import log_loss, top_k_accuracy_score
from suite_folders import class_tree, one_picture, subset

from hybridvit.card import ModelCard, Preprocessing
from hybridvit.checkpoints import save_checkpoint
from hybridvit.cli.main import main
from hybridvit.create import create_model
from hybridvit.data.generated import GeneratedImages
from hybridvit.data.listing import Listing
from hybridvit.errors import UsageError
from hybridvit.evaluate.corruptions.names import COMMON
from hybridvit.evaluate.suites.labels import subset_indices
from hybridvit.evaluate.suites.layout import Part, open_suite
from hybridvit.evaluate.suites.run import Subject, check_subject, evaluate_parts
from hybridvit.evaluate.suites.suites import SUITES, Suite
from hybridvit.evaluate.suites.summary import summary
from hybridvit.evaluate.suites.tally import Tally
from hybridvit.peers.robustness import ALEXNET_ERRORS
from hybridvit.robustness import _folder_of

CARD = ModelCard(architecture="fastvit_debug", preprocessing=Preprocessing(image_size=(32, 32), crop_fraction=1.0))


def part_of(right: np.ndarray, title: str = "imagenet", which=None, corruption: str = "", severity: int = 0) -> Part:
    return Part(
        suite=title.split("/")[0],
        title=title,
        identities=tuple(map(str, range(len(right)))),
        right=right[:, None],
        subset=which,
        listing=Listing(root="", paths=(), labels=(), class_names=(), fingerprint="f"),
        samples=lambda preprocessing: GeneratedImages(length=len(right)),
        side_px=lambda: (32, 32),
        corruption=corruption,
        severity=severity,
    )


def test_measures_equal_independent_computations_on_stored_logits():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(300, 50)).astype(np.float32)
    right = generator.integers(0, 50, 300)
    tally = Tally(part_of(right))
    order = generator.permutation(300)
    for numbers in np.array_split(order, 7):
        tally.add(logits[numbers], numbers)
    scores = tally.result().scores()
    wide = logits.astype(np.float64)
    labels = np.arange(50)
    probabilities = np.exp(log_softmax(wide, axis=1))
    expected = {
        "top1": top_k_accuracy_score(right, wide, k=1, labels=labels),
        "top5": top_k_accuracy_score(right, wide, k=5, labels=labels),
        "nll": log_loss(right, probabilities, labels=labels),
        "brier": ((probabilities - np.eye(50)[right]) ** 2).sum(1).mean(),
    }
    assert {name: scores[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_memory_grows_by_forty_bytes_an_image_over_50000_and_by_nothing_over_parts(tmp_path):
    right = np.arange(50_000) % 10
    logits = np.eye(10, dtype=np.float32)[right]

    def taken_bytes(num_images: int) -> int:
        tracemalloc.start()
        tally = Tally(part)
        for start in range(0, num_images, 500):
            numbers = np.arange(start, start + 500)
            tally.add(logits[numbers], numbers)
        taken = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return taken

    part = part_of(right)
    taken_bytes(500)  # what is only loaded once
    assert taken_bytes(50_000) - taken_bytes(10_000) < 40_000 * 40
    few = np.arange(100) % 10
    (result,) = evaluate_parts([subject("first", 0.9, few)], [part_of(few)], tmp_path)
    assert result.answers() is not result.answers()  # read from its file, and not kept


def test_a_is_judged_among_its_200_classes_with_argmax_over_1000_beside():
    logits = np.zeros((200, 1000), np.float32)
    logits[np.arange(200), subset_indices("a")] = 1
    logits[:, next(index for index in range(1000) if index not in subset_indices("a"))] = 2
    tally = Tally(part_of(np.arange(200), "a", "a"))
    tally.add(logits, np.arange(200))
    scores = tally.result().scores()
    assert (scores["top1"], scores["top1_unrestricted"]) == (1.0, 0.0)


def test_an_answer_is_right_if_it_is_in_the_set():
    part = dataclasses.replace(part_of(np.zeros(3, np.int64)), right=np.array([[1, 4], [2, -1], [3, -1]]))
    tally = Tally(part)
    tally.add(np.eye(10, dtype=np.float32)[[4, 3, 3]], np.arange(3))
    scores = tally.result().scores()
    assert (scores["num_right"], scores["nll"]) == (2, None)


def subject(path: str, share_right: float, right: np.ndarray) -> Subject:
    wrong = np.random.default_rng(len(path)).random(len(right)) >= share_right

    def answer(batch):
        numbers = batch.samples.numpy()
        subject_calls.append(path)
        return {"logits": torch.eye(10)[torch.from_numpy((right[numbers] + wrong[numbers]) % 10)]}

    return Subject(path=path, digest=path, card=CARD, runtime="torch", answer=answer, takes_size=lambda size: True)


subject_calls: list[str] = []


def test_pairs_are_compared_and_what_is_done_is_not_done_again(tmp_path):
    right = np.arange(120) % 10
    subjects = [subject("first", 0.9, right), subject("second!", 0.5, right)]
    parts = [part_of(right)]
    results = evaluate_parts(subjects, parts, tmp_path, batch_size=50)
    rows = summary(results, whole=True)
    ours, theirs = (result.answers().top1 for result in results)
    assert rows[1]["against_first"]["top1"] == pytest.approx(theirs.mean() - ours.mean())
    assert rows[1]["against_first"]["resolved"]
    assert rows[1]["against_first"]["mcnemar_p"] < 1e-6
    subject_calls.clear()
    again = summary(evaluate_parts(subjects, parts, tmp_path, batch_size=50), whole=True)
    assert not subject_calls
    assert json.dumps(again) == json.dumps(rows)
    evaluate_parts([*subjects, subject("third", 0.7, right)], parts, tmp_path)
    assert set(subject_calls) == {"third"}
    subject_calls.clear()
    evaluate_parts(subjects, parts, tmp_path, force=True)
    assert set(subject_calls) == {"first", "second!"}


def test_mean_corruption_error_is_over_all_parts(tmp_path):
    right = np.arange(20) % 10
    parts = [part_of(right, f"c/{name}/{level}", None, name, level) for name in COMMON for level in range(1, 6)]
    (row,) = summary(evaluate_parts([subject("one", 0.6, right)], parts, tmp_path), whole=True)
    error = row["mean_error"]
    expected = np.mean([100 * 5 * error / sum(values) for values in ALEXNET_ERRORS.values()])
    assert row["mce"] == pytest.approx(expected)
    assert row["mce_interval"][0] < row["mce"] < row["mce_interval"][1]
    (partly,) = summary(evaluate_parts([subject("one", 0.6, right)], parts[:-1], tmp_path), whole=True)
    assert "mce" not in partly


def test_other_classes_and_outputs_are_refused(tmp_path):
    right = np.arange(20) % 10
    few = dataclasses.replace(subject("m", 1.0, right), card=dataclasses.replace(CARD, class_names=("cat", "dog")))
    with pytest.raises(UsageError, match="such as 'cat', but the suites a are of the 1,000 classes"):
        check_subject(few, [SUITES["a"]])
    check_subject(few, [Suite(name="own", title="own", layout="classes")])
    tower = dataclasses.replace(few, card=ModelCard(architecture="fastvit_mci0"))  # which answers with an embedding
    with pytest.raises(UsageError, match="m answers with 512 classes, but the suites a are"):
        check_subject(tower, [SUITES["a"]])
    features = dataclasses.replace(few, answer=lambda batch: {"features": torch.zeros(len(batch.samples), 3)})
    with pytest.raises(UsageError, match="gives features, but suites need logits"):
        evaluate_parts([features], [part_of(right)], tmp_path)


@pytest.mark.parametrize("workers", [0, 2])
def test_real_files_of_a_suite_are_answered_whole(tmp_path, workers):
    folder = subset(tmp_path / "imagenet-a", one_picture(tmp_path), "a")
    parts = open_suite(SUITES["a"], folder, ())
    found = dataclasses.replace(
        subject("m", 1.0, np.arange(200)), answer=lambda batch: {"logits": torch.zeros(len(batch.samples), 1000)}
    )
    (result,) = evaluate_parts([found], parts, tmp_path / "kept", workers=workers)
    assert (result.scores["num_images"], result.scores["num_right"]) == (200, 1)


def test_options_that_do_nothing_are_refused(capsys):
    for words, message in (
        (["m.safetensors", "data", "--share", "0.5"], "--share is of suites, but none is asked for"),
        (["m.safetensors"], "but was given 1 word"),
        (["m.safetensors", "--suites", "a=x", "--share", "2"], "must be above 0 and at most 1"),
        (["m.safetensors", "--suites", "a=x", "--folder", __file__], "is a file, but a folder is to be written there"),
        (["m.safetensors", "--suites", "a=x", "--tile", "3"], "--tile does not go with --suites"),
        (["m.safetensors", "--suites", "a=x", "--predictions", "p.txt"], "must end in .csv.gz or .parquet"),
    ):
        assert main(["evaluate", *words]) == 2
        assert message in capsys.readouterr().err


def test_a_file_that_names_no_classes_takes_those_of_the_folder_where_they_are_as_many(tmp_path, capsys):
    picture = one_picture(tmp_path)
    class_tree(tmp_path / "own", picture, ["ant", "bee"])
    class_tree(tmp_path / "more", picture, ["ant", "bee", "cat"])
    save_checkpoint(create_model("fastvit_debug", num_classes=2).eval(), tmp_path / "m.safetensors")
    words = ["evaluate", str(tmp_path / "m.safetensors"), "--folder", str(tmp_path / "kept"), "--json", "--suites"]
    assert main([*words, f"own={tmp_path / 'own'}", "--only", "fog"]) == 2
    assert "--only is of suites of corruptions, but none is asked for" in capsys.readouterr().err
    assert main([*words, f"own={tmp_path / 'own'}"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["suites"]
    assert (row["num_images"], row["num_right"]) == (2, 1)
    assert main([*words, f"own={tmp_path / 'more'}"]) == 3
    assert "has 3 classes, but" in capsys.readouterr().err


def test_runs_that_name_their_files_alike_have_folders_of_their_own():
    folders = [_folder_of(file) for file in ("a/m.onnx", "b/m.onnx", "a/m.safetensors", "../a/n.pt", "hf://me/it")]
    assert folders[0] == Path("runs/evaluate/a/m.onnx")
    assert len({*folders}) == 5
    assert all(".." not in folder.parts and folder.parts[:2] == ("runs", "evaluate") for folder in folders)
