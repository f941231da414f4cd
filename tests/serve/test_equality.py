"""What a service answers under load is what `hybridvit predict` answers, and clients that go leave nothing behind."""

import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from all_pictures import all_pictures
from asking import Caller, Said, array_of, at_once, plain, v2_binary, v2_json
from serving import serving
from trained_like import trained_like

import hybridvit
from hybridvit.cli import main
from hybridvit.data.preprocess import prepare
from hybridvit.export.pipeline import export

CONNECTIONS, NUM_REQUESTS, NUM_OF_OTHERS = 32, 2_000, 300
DEADLINE_S, GONE_WITHIN_S = 30.0, 10.0
SAME = {"rtol": 1e-5, "atol": 1e-6}
LEAST_APART = 1e-4  # probabilities of two pictures: thirty times what counts as the same
NUM_CLASSES = 10
OTHERS = [
    "safetensors",
    "xml",
    pytest.param("pte", marks=pytest.mark.nightly),  # whose export takes half a minute
]


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    return all_pictures()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, pictures: list[bytes]) -> Path:
    """A checkpoint that has an answer of its own for each picture, and the pictures."""
    folder = tmp_path_factory.mktemp("equality")
    model = trained_like(hybridvit.create_model("fastvit_debug", num_classes=NUM_CLASSES))
    tell_apart(model, np.stack([prepare(content, model.card.preprocessing) for content in pictures]))
    hybridvit.save_checkpoint(model, folder / "m.safetensors")
    (folder / "pictures").mkdir()
    for number, content in enumerate(pictures):
        (folder / "pictures" / f"{number:03}.jpg").write_bytes(content)  # what they are is seen by their content
    return folder


@torch.no_grad()
def tell_apart(model: torch.nn.Module, images: np.ndarray) -> None:
    """Give norms the statistics of these images, as training does, and let all classes compete for them.

    With other statistics all pictures look nearly alike to each layer, and so little apart that two answers which were
    exchanged could pass for equal; a gain at the end would make rounding larger too.
    """
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None  # the mean of what comes
    model.train()(torch.from_numpy(images))
    classifier = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)][-1]
    classifier.bias.sub_(model.eval()(torch.from_numpy(images)).mean(0))


@pytest.fixture(scope="module")
def exported(folder: Path) -> Path:
    export(hybridvit.load(folder / "m.safetensors"), folder / "m.onnx")
    return folder / "m.onnx"


@pytest.fixture(scope="module")
def service(exported: Path) -> Iterator[Caller]:
    with serving(exported, "--max_batch", 16) as process:
        yield Caller(process.port)


@pytest.fixture
def predicted(folder: Path, capsys: pytest.CaptureFixture[str]):
    """Gives what `hybridvit predict` prints for the pictures: of each its predictions."""

    def of(path: Path) -> list[list[dict]]:
        words = ["predict", str(path), str(folder / "pictures"), "--json", "--device", "cpu", "--top", str(NUM_CLASSES)]
        assert main(words) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [Path(row["image"]).stem for row in rows] == [f"{number:03}" for number in range(len(rows))]
        answers = [row["predictions"] for row in rows]
        firsts = [answer[0]["index"] for answer in answers]
        assert len(set(firsts)) >= 3, "a test of equality needs answers that differ"
        chances = np.array([[by_index[place] for place in range(NUM_CLASSES)] for by_index in map(_chances, answers)])
        apart = np.abs(chances[:, None] - chances).max(axis=2)[np.triu_indices(len(rows), 1)]
        assert apart.min() >= LEAST_APART, "answers of two pictures could be exchanged unseen"
        return answers

    return of


def _chances(predictions: list[dict]) -> dict[int, float]:
    """The probability of each class by its index, the largest first."""
    return {each["index"]: each["probability"] for each in predictions}


def check(said: Said, place: int, predictions: list[dict]) -> None:
    """Raise AssertionError where an answer is not that of `hybridvit predict`."""
    assert said.status == 200, said.body[:300]
    wanted = _chances(predictions)
    if "predictions" in said.json:
        given = _chances(said.json["predictions"])
    else:
        chances, indices = array_of(said, "probabilities")[0], array_of(said, "indices")[0]
        given = dict(zip(indices.tolist(), chances.tolist(), strict=True))
    assert next(iter(given)) == next(iter(wanted)), place
    np.testing.assert_allclose([given[index] for index in wanted], list(wanted.values()), **SAME)


def asked_in_every_way(number: int, picture: bytes):
    """The request of that number: the ways to ask in turn."""
    ask = (
        lambda: plain(picture, f"m&top={NUM_CLASSES}"),
        lambda: v2_json([picture], "m", parameters={"top": NUM_CLASSES}),
        lambda: v2_binary([picture], "m", parameters={"top": NUM_CLASSES, "binary_data_output": True}),
    )[number % 3]
    return ask()


def test_two_thousand_requests_at_32_connections_get_the_answers_of_predict(service, exported, pictures, predicted):
    """Every tenth client more sends a request and does not wait: nothing of it is left in the queue."""
    answers = predicted(exported)

    def work(number: int) -> tuple[float, int]:
        place = number % len(pictures)
        ask = asked_in_every_way(number // len(pictures) + number, pictures[place])
        if number % 10 == 9:
            service.leave(ask)
        began = time.perf_counter()
        said = kept(ask)
        seconds = time.perf_counter() - began
        check(said, place, answers[place])
        return seconds, said.json.get("batch", 0)

    began = time.perf_counter()
    with closing(Caller(service.port, keep=True)) as kept:
        times, batches = zip(*at_once(work, NUM_REQUESTS, CONNECTIONS), strict=True)
    seconds = time.perf_counter() - began
    assert np.quantile(times, 0.99) < DEADLINE_S
    assert max(batches) > 1, "nothing was computed together"
    _wait_until_all_ended(service, NUM_REQUESTS + NUM_REQUESTS // 10)
    codes = _codes(service)
    assert set(codes) <= {"200", "499"}
    assert codes["200"] >= NUM_REQUESTS
    assert service.number("hybridvit_queue_length") == 0
    print(
        f"\n{NUM_REQUESTS} requests in {seconds:.1f} s ({NUM_REQUESTS / seconds:.0f}/s), p50 "
        f"{1e3 * np.quantile(times, 0.5):.0f} ms, p99 {1e3 * np.quantile(times, 0.99):.0f} ms, "
        f"{service.number('hybridvit_cancelled_total'):.0f} clients seen to be gone"
    )


def _codes(service: Caller) -> dict[str, float]:
    """How many requests to the model ended with each status."""
    lines = service.get("/metrics").body.decode().splitlines()
    rows = [line for line in lines if line.startswith("hybridvit_requests_total{") and 'model="m"' in line]
    return {row.partition('code="')[2].partition('"')[0]: float(row.rpartition(" ")[2]) for row in rows}


def _wait_until_all_ended(service: Caller, count: int) -> None:
    until = time.monotonic() + GONE_WITHIN_S
    while (ended := sum(_codes(service).values())) != count:
        assert time.monotonic() < until, f"{ended} of {count} requests ended"
        time.sleep(0.1)


def test_answers_computed_together_are_those_computed_alone(service, exported, pictures):
    every = [
        v2_binary([picture], "m", parameters={"top": NUM_CLASSES, "binary_data_output": True}) for picture in pictures
    ]

    def by_class(said: Said) -> np.ndarray:
        return array_of(said, "probabilities")[0][np.argsort(array_of(said, "indices")[0])]

    with serving(exported, "--max_batch", 1) as process:
        alone = np.stack([by_class(said) for said in map(Caller(process.port), every)])
    together = np.stack(
        [by_class(said) for said in at_once(lambda number: service(every[number]), len(every), CONNECTIONS)]
    )
    several = service(v2_binary(pictures[:40], "m", parameters={"top": NUM_CLASSES, "binary_data_output": True}))
    assert array_of(several, "probabilities").shape == (40, NUM_CLASSES)
    ordered = np.take_along_axis(
        array_of(several, "probabilities"), np.argsort(array_of(several, "indices"), axis=1), axis=1
    )
    assert np.abs(together - alone).max() / alone.max() <= 1e-5
    assert np.abs(ordered - alone[:40]).max() / alone.max() <= 1e-5


@pytest.mark.parametrize("suffix", OTHERS)
def test_files_of_every_runtime_answer_as_predict(folder, pictures, predicted, suffix):
    path = folder / f"m.{suffix}"
    if suffix != "safetensors":
        target = {"xml": "openvino", "pte": "executorch"}[suffix]
        pytest.importorskip(target)
        export(hybridvit.load(folder / "m.safetensors"), path, to=target)
    answers = predicted(path)

    with serving(path, "--device", "cpu", "--max_batch", 8) as process:
        service = Caller(process.port)

        def work(number: int) -> None:
            place = number % len(pictures)
            check(service(asked_in_every_way(number, pictures[place])), place, answers[place])

        at_once(work, NUM_OF_OTHERS, CONNECTIONS)
