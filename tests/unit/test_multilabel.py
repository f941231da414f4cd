"""Several labels per image: what a table says, what is minimised, what answers are worth, and how they are told."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from hybridvit.batch import Batch
from hybridvit.card import ModelCard
from hybridvit.data.listing import Labels, Listing, part_of_each
from hybridvit.errors import DatasetError, UsageError
from hybridvit.recipe.file import load_recipe
from hybridvit.report.content import Table
from hybridvit.scores import Scores
from hybridvit.task import Moment, Place
from hybridvit.tasks.multilabel import metric as of_metric
from hybridvit.tasks.multilabel.config import MultilabelData, MultilabelRecipe
from hybridvit.tasks.multilabel.data import as_zeros_and_ones, open_labelled, padded
from hybridvit.tasks.multilabel.generated import GeneratedLabels
from hybridvit.tasks.multilabel.metric import MultilabelMetric
from hybridvit.tasks.multilabel.result import ANSWER, MultilabelResult, results_of
from hybridvit.tasks.multilabel.table import list_labels
from hybridvit.tasks.multilabel.task import Multilabel

TRUE = {"a.png": ("cat", "dog"), "b.png": (), "c.png": ("dog",), "d.png": ("bird", "cat"), "e.png": ("dog",)}
NAMES = ("bird", "cat", "dog")
CARD = ModelCard(architecture="fastvit_debug", task="multilabel", options={"num_classes": 3}, class_names=NAMES)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, name in enumerate(TRUE):
        Image.new("RGB", (40, 36), (50 * number, 99, 7)).save(tmp_path / name)
    return tmp_path


def lines(between: str = ";", comma: str = ",", head: str = "path,labels") -> list[str]:
    return [head.replace(",", comma), *(f"{name}{comma}{between.join(labels)}" for name, labels in TRUE.items())]


def written(folder: Path, *rows: str, name: str = "all.csv") -> Path:
    (folder / name).write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder / name


def as_read(listing: Listing[Labels]) -> dict[str, tuple[str, ...]]:
    pairs = zip(listing.paths, listing.labels, strict=True)
    return {Path(path).name: tuple(listing.class_names[label] for label in labels) for path, labels in pairs}


def in_columns(names: tuple[str, ...], yes: str = "1", no: str = "0") -> list[str]:
    marks = ((name, (yes if each in labels else no for each in names)) for name, labels in TRUE.items())
    return [f"image,{','.join(names)},age", *(f"{name},{','.join(row)},{40 + len(name)}" for name, row in marks)]


@pytest.mark.parametrize("kind", ["cells", "semicolons", "pipes", "rows", "columns", "words", "parquet"])
def test_every_kind_of_table_says_the_same(photos: Path, kind: str) -> None:
    data, said = MultilabelData(root="x"), list[str]()
    if kind == "parquet":
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        table = photos / "all.parquet"
        parquet.write_table(
            arrow.table({"path": list(TRUE), "tags": [list(labels) for labels in TRUE.values()]}), table
        )
    elif kind == "rows":  # one for each label
        pairs = [f"{name},{label}" for name, labels in TRUE.items() for label in labels or ("",)]
        table = written(photos, "file,label", *pairs)
    elif kind == "semicolons":
        quoted = [f'{name};"{";".join(labels)}"' for name, labels in TRUE.items()]
        table = written(photos, "path;labels", *quoted)
    elif kind == "pipes":
        data = MultilabelData(root="x", label_separator="|", label_column="Finding", image_column="Scan")
        table = written(photos, *lines(" | ", head="Scan,Finding"))
    elif kind in ("columns", "words"):
        table = written(photos, *in_columns(NAMES, *(("1", "0") if kind == "columns" else ("True", "False"))))
    else:
        table = written(photos, *lines())
    listing = list_labels(table, data=data, say=said.append)
    assert listing.class_names == NAMES
    assert as_read(listing) == TRUE
    expected = {
        "rows": "has 7 rows of 5 images: those of one image are taken together.",
        "columns": "is a class: 'bird', 'cat', 'dog'. No classes are: 'image', 'age'.",
    }
    expected["words"] = expected["columns"]
    assert [line.endswith(expected.get(kind, "nothing")) for line in said] == [True] * (kind in expected)


def test_named_columns_are_the_classes_in_their_order(photos: Path) -> None:
    table = written(photos, *in_columns(NAMES))
    listing = list_labels(table, data=MultilabelData(root="x", label_columns=("dog", "cat")))
    assert listing.class_names == ("dog", "cat")
    assert as_read(listing)["a.png"] == ("dog", "cat")
    assert as_read(listing)["d.png"] == ("cat",)


@pytest.mark.parametrize("rows", [lines("|"), lines(";"), in_columns(("dog", "bird", "cat"))])
def test_a_model_is_judged_on_any_kind_of_table_by_its_own_classes(photos: Path, rows: list[str]) -> None:
    images = open_labelled(str(written(photos, *rows)), CARD)
    assert images.class_names == NAMES
    assert images.labels == ((1, 2), (), (2,), (0, 1), (2,))
    assert images[0][1].tolist() == [1, 2]
    named = written(photos, *lines("|", head="Scan,Finding"), name="named.csv")
    assert open_labelled(str(named), CARD, image_column="Scan", label_column="Finding").labels == images.labels
    with pytest.raises(DatasetError, match=r"is no table \(.csv, .tsv or .parquet\)"):
        open_labelled(str(photos), CARD)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (lines("|"), r"No cell of .* has ';' between labels, but 'cat\|dog' has '\|'.*--data.label_separator '\|'"),
        (["path,labels", ",cat"], r"Row 1 of .* has no path\. Fill it in"),
        (["path,labels"], r"has no rows"),
        (["path;labels", "a.png;cat;dog"], r"Row 1 of .* has 3 cells, but the head names 2 columns.*';' into quotes"),
        (["path,labels", "gone.png,cat"], r"Cannot read .*gone\.png"),
        (["path,age", "a.png,41"], r"no column named like labels \(labels, .*'path', 'age'.*--data\.label_column"),
        (["path,cat,dog", "a.png,1,0", "a.png,1,1"], r"two rows of a\.png, with other marks in each\. Keep one"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(photos: Path, rows: list[str], words: str) -> None:
    with pytest.raises(DatasetError, match=words):
        list_labels(written(photos, *rows))


def test_a_column_of_a_class_has_no_third_value(photos: Path) -> None:
    table, data = written(photos, "path,cat", "a.png,1", "b.png,-1"), MultilabelData(root="x", label_columns=("cat",))
    with pytest.raises(DatasetError, match=r"Row 2 of .* has '-1' under 'cat', but the column of a class has 1 or 0"):
        list_labels(table, data=data)
    with pytest.raises(DatasetError, match=r"has no column 'cats'. Nearest: 'cat'"):
        list_labels(table, data=dataclasses.replace(data, label_columns=("cats",)))


def listing(labels: list[Labels]) -> Listing[Labels]:
    paths = tuple(f"/x/{number}.png" for number in range(len(labels)))
    return Listing(root="/x", paths=paths, labels=tuple(labels), class_names=tuple("abcde"), fingerprint="f")


def test_every_label_has_its_share_held_out_and_none_is_left_without_an_image() -> None:
    dice = np.random.default_rng(0)
    chances = (0.5, 0.3, 0.1, 0.02, 0.004)
    labels = [tuple(np.flatnonzero(dice.random(5) < chances).tolist()) for _ in range(600)]
    train, rest = listing(labels).split(0.2)
    assert len(rest.paths) == pytest.approx(120, abs=12)
    for label in range(5):
        here, there = (sum(label in each for each in part.labels) for part in (train, rest))
        assert there == pytest.approx(0.2 * (here + there), abs=0.06 * (here + there) + 1)
        assert min(here, there) > 0 or (here, there) == (1, 0)
    assert sum(not each for each in rest.labels) == pytest.approx(0.2 * sum(not each for each in labels), abs=3)
    assert part_of_each([[0, 1], [2, 3], [0, 2]], 0.5) == {0, 3} or part_of_each([[0, 1], [2, 3], [0, 2]], 0.5) == {
        0,
        2,
    }


def test_with_one_label_each_the_parts_are_those_of_class_folders() -> None:
    labels = np.random.default_rng(1).integers(0, 5, 200).tolist()
    several = listing([(label,) for label in labels])
    single: Listing[int] = Listing(**{**vars(several), "labels": tuple(labels)})
    for cut in (lambda each: each.split(0.2), lambda each: each.fold(2, 5)):
        for one, other in zip(cut(several), cut(single), strict=True):
            assert one.paths == other.paths
    backwards = Listing(**{**vars(several), "paths": several.paths[::-1], "labels": several.labels[::-1]})
    assert set(backwards.split(0.2)[1].paths) == set(several.split(0.2)[1].paths)


class Says(nn.Module):
    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images: Tensor) -> Tensor:
        self.seen = images
        return self.logits


RECIPE = load_recipe("multilabel", {"data.root": "x", "pretrained": False, "reset_head": False})
TARGETS = padded([torch.tensor(labels, dtype=torch.long) for labels in ((0, 2), (), (1,), (2,))])
TRUTHS = torch.tensor([[1.0, 0, 1], [0, 0, 0], [0, 1, 0], [0, 0, 1]])


def loss(
    model: nn.Module, images: Tensor | None = None, samples: GeneratedLabels | None = None, **augment: float
) -> Tensor:
    assert isinstance(RECIPE, MultilabelRecipe)
    weights = augment.pop("pos_weight", "none")
    recipe = dataclasses.replace(
        RECIPE,
        augment=dataclasses.replace(RECIPE.augment, **augment),
        pos_weight=weights,
    )
    place = Place(
        device=torch.device("cpu"),
        layout=torch.contiguous_format,
        micro_batch=4,
        autocast=torch.no_grad,
        samples=samples,
    )
    images = torch.zeros(4, 3, 8, 8) if images is None else images
    objective = Multilabel().objective(recipe, CARD, place)
    torch.manual_seed(0)
    np.random.seed(0)
    return objective.loss(model, Batch(images, TARGETS, torch.arange(4)), Moment(step=0, total_steps=1, averaged=None))


def test_the_loss_is_a_binary_cross_entropy_for_each_class() -> None:
    assert torch.equal(as_zeros_and_ones(TARGETS, 3), TRUTHS)
    model = Says(torch.randn(4, 3))
    expected = F.binary_cross_entropy_with_logits
    torch.testing.assert_close(loss(model), expected(model.logits, TRUTHS))
    torch.testing.assert_close(loss(model, label_smoothing=0.2), expected(model.logits, 0.8 * TRUTHS + 0.1))
    weights = torch.tensor([1.0, 2.0, 0.5])
    given = loss(model, pos_weight=(1.0, 2.0, 0.5))
    torch.testing.assert_close(given, expected(model.logits, TRUTHS, pos_weight=weights))
    samples = GeneratedLabels(length=3, image_size=8)  # labels: none, red, green
    balanced = loss(model, samples=samples, pos_weight="balanced")
    torch.testing.assert_close(balanced, expected(model.logits, TRUTHS, pos_weight=torch.tensor([2.0, 2.0, 3.0])))


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_labels_are_mixed_as_the_images_are(kind: str) -> None:
    model, images = Says(torch.randn(4, 3)), torch.eye(4)[:, :, None, None].expand(4, 4, 64, 64).clone()
    given = loss(model, images, **{kind: 1.0})
    shares = model.seen.mean((2, 3))  # of each image in each
    assert 0.01 < shares[0, 3] < 0.99
    torch.testing.assert_close(given, F.binary_cross_entropy_with_logits(model.logits, shares @ TRUTHS))


def test_what_cannot_be_is_refused_with_the_fix() -> None:
    with pytest.raises(
        UsageError, match=r"'pos_weight' has 2 numbers, but there are 3 classes \('bird', 'cat', 'dog'\)"
    ):
        loss(Says(torch.zeros(4, 3)), pos_weight=(1.0, 2.0))
    for key, value, words in [
        ("pos_weight", "[-1]", r"'pos_weight' is -1\.0, but it must be at least 0\.0"),
        ("class_weights", "balanced", r"'class_weights' is unknown\. It is called 'pos_weight' here"),
        ("distill.teacher", "resnet18", r"'distill\.teacher' is unknown\. It is for recipes of the task 'classify'"),
        ("mesa.weight", "1", r"'mesa\.weight' is unknown\. It is for recipes of the task 'classify'"),
        ("data.sampler", "balanced", r"'data\.sampler' is unknown\. It is for recipes of the task 'classify'"),
        ("data.source", "folder", r"'data\.source' is 'folder', but it must be 'table' or"),
        ("data.cache_gb", "3", r"'data\.cache_gb' is 3\.0, but no data\.source of this task has a use for it"),
        ("data.label_separator", "", r"'data\.label_separator' is empty"),
    ]:
        with pytest.raises(UsageError, match=words):
            load_recipe("multilabel", {"data.root": "x", key: value})
    with pytest.raises(UsageError, match=r"'data\.label_separator' is for a column that names all labels"):
        MultilabelData(root="x", label_columns=("cat",), label_separator="|")


def judged(logits: np.ndarray, truths: np.ndarray, *, num_examples: int = 0) -> MultilabelMetric:
    card = dataclasses.replace(CARD, class_names=tuple(f"c{number}" for number in range(logits.shape[1])))
    metric = MultilabelMetric(card, num_examples=num_examples)
    for part in np.array_split(np.arange(len(logits)), 3)[: len(logits)]:
        labels = padded([torch.from_numpy(np.flatnonzero(row)) for row in truths[part]])
        batch = Batch(torch.zeros(len(part)), labels, torch.from_numpy(part))
        metric.update({ANSWER: torch.from_numpy(logits[part])}, batch)
    return metric


def answers(num_images: int = 400, num_classes: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Of which the last class has no image, the first all, and scores are tied often."""
    dice = np.random.default_rng(0)
    truths = dice.random((num_images, num_classes)) < 0.2
    truths[:, 0], truths[:, -1] = True, False
    logits = np.round(2 * dice.standard_normal(truths.shape) + 2 * truths - 1, 1).astype(np.float32)
    return logits, truths


def test_scores_are_those_of_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    logits, truths = answers()
    scores = judged(logits, truths).compute()
    classes = scores.details["classes"]
    expected = [sklearn.average_precision_score(truths[:, place], logits[:, place]) for place in range(5)]
    np.testing.assert_allclose([each["ap"] for each in classes[:5]], 100 * np.array(expected), atol=1e-4)
    assert classes[5] == {"name": "c5", "precision": 0.0, "recall": None, "f1": 0.0, "num_images": 0, "ap": None}
    assert scores.values["map"] == pytest.approx(100 * np.mean(expected), abs=1e-4)
    said = logits > 0
    assert scores.values["f1"] == pytest.approx(100 * sklearn.f1_score(truths, said, average="micro"), abs=1e-4)
    by_class = sklearn.precision_recall_fscore_support(truths, said, zero_division=0)
    for key, values in zip(("precision", "recall", "f1"), by_class[:3], strict=True):
        np.testing.assert_allclose([each[key] for each in classes[:5]], 100 * values[:5], atol=1e-4, err_msg=key)
    bce = F.binary_cross_entropy_with_logits(torch.from_numpy(logits), torch.from_numpy(truths).float())
    assert scores.values["loss"] == pytest.approx(bce.item(), rel=1e-5)
    json.dumps(scores.details, allow_nan=False)
    (table,) = (part for part in scores.parts if isinstance(part, Table))
    assert (table.title, table.head[:3]) == ("Classes, the lowest AP first", ["Class", "AP", "Precision"])
    assert table.rows[-1] == ["c5", "–", "0.00 %", "–", "0.00 %", "0"]


def test_several_processes_judge_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, truths = answers()
    whole = judged(logits, truths, num_examples=3).compute()
    shares: list[object] = []
    monkeypatch.setattr(of_metric, "of_all_ranks", lambda share: shares.append(share) or [*shares])

    def compute(*rows: slice) -> Scores:
        return [judged(logits[each], truths[each], num_examples=3).compute() for each in rows][-1]

    together = compute(slice(0, 400, 2), slice(1, 400, 2), slice(0, 0))  # of which one has no image
    assert together.values == pytest.approx(whole.values, rel=1e-12)
    assert together.details == whole.details
    assert [each.order for each in together.examples] == [each.order for each in whole.examples]


def test_pictures_are_shown_by_their_worst_label() -> None:
    logits = np.array([[3.0, -3.0], [0.2, -3.0], [-2.0, -3.0], [-3.0, -3.0]], np.float32)
    truths = np.array([[1, 0], [1, 0], [1, 0], [0, 0]], bool)
    examples = judged(logits, truths, num_examples=5).compute().examples
    assert [each.sample for each in examples] == [2, 1, 0, 3]
    assert [(each.said, each.truth, each.note) for each in examples[:2]] == [
        ("said nothing", "is c0", "c0 11.9 %"),
        ("c0", "", "c0 55.0 %"),
    ]


def test_nothing_to_find_is_said() -> None:
    with pytest.raises(DatasetError, match="None of the 3 images has a label"):
        judged(np.zeros((3, 2), np.float32), np.zeros((3, 2), bool)).compute()
    with pytest.raises(UsageError, match=r"The file gives features, but what labels are worth"):
        MultilabelMetric(CARD, num_examples=0).update({"features": torch.zeros(1, 2)}, Batch(*[torch.zeros(1)] * 3))


def result(*scores: float, most: int | None = None) -> MultilabelResult:
    return MultilabelResult(names=NAMES, scores=np.array(scores), most=most)


def test_labels_above_half_are_told_highest_first() -> None:
    assert result(0.7, 0.1, 0.95).lines() == ["   95.00 %  dog", "   70.00 %  bird"]
    assert result(0.2, 0.1, 0.5).lines() == ["  no label above 50 %; the highest is dog with 50.00 %"]
    assert result(0.7, 0.1, 0.4, most=2).lines() == ["   70.00 %  bird", "   40.00 %  dog  (not above 50 %)"]
    rows = [
        {"class": name, "index": index, "score": score} for name, index, score in (("dog", 2, 0.9), ("cat", 1, 0.4))
    ]
    assert result(0.1, 0.4, 0.9, most=2).to_dict() == {"predictions": rows[:1], "top": rows}
    assert result(0.1, 0.2, 0.3).to_dict()["predictions"] == []
    (told,) = results_of({ANSWER: np.array([[-1000.0, 0.0, 1000.0]])}, CARD)
    assert told.scores.tolist() == [pytest.approx(0.0), 0.5, 1.0]
    with pytest.raises(UsageError, match=r"gives features, so it names no labels\. Call what"):
        results_of({"features": np.zeros((1, 3))}, CARD)


@pytest.mark.parametrize(
    ("other", "agrees"),
    [((0.7, 0.1, 0.95), True), ((0.6, 0.4, 0.51), True), ((0.501, 0.1, 0.95), True), ((0.4, 0.1, 0.95), False)],
)
def test_answers_agree_if_they_have_the_same_labels_but_for_rounding(other: tuple[float, ...], agrees: bool) -> None:
    assert result(0.7, 0.1, 0.95).agrees(result(*other)) is agrees
    assert result(0.499, 0.1, 0.95).agrees(result(0.501, 0.1, 0.95))
    assert not result(0.48, 0.1, 0.95).agrees(result(0.52, 0.1, 0.95))
