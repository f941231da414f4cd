"""Each route and each refusal of a service, for the models of several tasks."""

import asyncio
import dataclasses
import gzip
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from asking import v2_json
from detectors import detector
from PIL import Image
from serving import NAMES, WITHIN_S, Service, classifier, picture
from trained_like import trained_like

import hybridvit
from hybridvit.cli import main
from hybridvit.data.decode import decode_image
from hybridvit.predictor import Predictor
from hybridvit.scores import Result
from hybridvit.serve.limits import Limits
from hybridvit.serve.predict import Asked
from hybridvit.serve.refusals import EVERY, NotFinite, Overloaded

MOST_BYTES, MOST_PIXELS = 200_000, 250_000


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file of each kind."""
    folder = tmp_path_factory.mktemp("served")
    head = {"pyramid_channels": 8, "channels": 8}
    made = {
        "segment": hybridvit.create_model("fastvit_debug", task="segment", head_options=head, num_classes=3),
        "detect": detector("mask_rcnn").eval(),
    }
    for name, model in made.items():
        hybridvit.save_checkpoint(trained_like(model), folder / f"{name}.safetensors")
    files = {name: folder / f"{name}.safetensors" for name in made}
    files["classify"] = classifier(folder / "classify.onnx", top_k=5)
    files["torch"] = classifier(folder / "torch.safetensors")
    return files


@pytest.fixture(scope="module")
def service(paths: dict[str, Path]) -> Iterator[Service]:
    limits = Limits(max_batch=4, max_bytes=MOST_BYTES, max_pixels=MOST_PIXELS)
    service = Service(paths, limits)
    yield service
    service.close()


def named_in_colours(told: dict) -> set[str]:
    """The classes of an answer that have a colour in its drawing."""
    if told["task"] == "segment":
        return {row["class"] for row in told["classes"]}
    return {row["class"] for row in told["predictions"] if row.get("score", 0) >= 0.5}


def test_answers_of_every_task_are_what_predict_prints_for_the_same_bytes(
    service: Service, paths: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "noise.png").write_bytes(picture())
    for name in ("classify", "segment", "detect"):
        assert main(["predict", str(paths[name]), str(tmp_path / "noise.png"), "--json", "--device", "cpu"]) == 0
        printed = capsys.readouterr().out.strip()
        answered = service.post(f"/predict?model={name}", picture())
        assert answered.status_code == 200
        told = answered.json()
        assert (told["model"], told["task"], told["size"], told["batch"]) == (name, name, [50, 40], 1)
        assert told["lies_in_picture"] == (name != "classify")
        assert told.get("colours", {}).keys() == named_in_colours(told)
        assert told["ms"].keys() == {"decode", "queue", "compute"}
        assert told["request_id"] == answered.headers["x-request-id"]
        ours = printed.partition(', "')[2].removesuffix("}")  # behind the image
        assert ours in answered.text


def test_fewer_entries_are_answered_where_that_is_asked_for(service: Service) -> None:
    answered = service.post("/predict?model=classify&top=2", picture()).json()
    assert len(answered["predictions"]) == 2


def test_a_picture_with_the_answer_on_it_is_what_the_answer_draws(service: Service, paths: dict[str, Path]) -> None:
    for name in ("classify", "segment", "detect"):
        answered = service.post(f"/predict?model={name}&picture=1", picture())
        assert answered.headers["content-type"] == "image/png"
        (result,) = Predictor(paths[name], device="cpu")([picture()])
        assert isinstance(result, Result)
        drawn = Image.open(io.BytesIO(answered.content))
        assert drawn.tobytes() == result.draw(decode_image(picture())).tobytes()


def test_a_classifier_in_pytorch_shows_what_speaks_for_its_answer(service: Service) -> None:
    overlays = {each["name"]: each["overlays"] for each in service.get("/models").json()}
    assert overlays == {"torch": ["cam", "attention"], "classify": [], "segment": [], "detect": []}
    for name in overlays["torch"]:
        answered = service.post(f"/predict?model=torch&overlay={name}", picture())
        assert answered.headers["content-type"] == "image/png"
        assert max(Image.open(io.BytesIO(answered.content)).size) == 384
    unknown = service.post("/predict?model=torch&overlay=camm", picture())
    refused(unknown, 400, "bad_request", "has no overlay 'camm'. Nearest: 'cam'.")
    refused(service.post("/predict?model=classify&overlay=cam", picture()), 400, "bad_request", "It has none")
    refused(service.post("/predict?model=torch&overlay=cam&picture=1", picture()), 400, "bad_request", "of its own")


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "image/jpeg", "text/plain", ""])
def test_whatever_a_body_is_called_its_content_tells_what_it_is(service: Service, kind: str) -> None:
    assert service.post("/predict?model=classify", picture(kind="JPEG"), content_type=kind).status_code == 200


def refused(response, status: int, code: str, message: str) -> None:
    """Check one refusal."""
    told = response.json()
    assert (response.status_code, told["error"]) == (status, code)
    assert message in told["message"]
    assert told["request_id"] == response.headers["x-request-id"]
    assert told.keys() == {"error", "message", "request_id"}
    assert "Traceback" not in response.text


def test_a_model_that_is_not_there_is_refused_with_the_nearest(service: Service) -> None:
    refused(service.post("/predict?model=clasify", picture()), 404, "no_such_model", "Nearest: 'classify'.")


def test_a_request_that_names_none_of_several_models_is_refused(service: Service) -> None:
    refused(service.post("/predict", picture()), 400, "bad_request", "names no model, and there are 4")


@pytest.mark.parametrize("query", ["top=0", "top=x", "top=1001", "top=%31%30x", "picture=perhaps", "tops=3"])
def test_a_query_outside_its_range_is_refused(service: Service, query: str) -> None:
    refused(service.post(f"/predict?model=classify&{query}", picture()), 400, "bad_request", query.partition("=")[0])


def test_more_entries_than_a_file_gives_are_refused(service: Service) -> None:
    answered = service.post("/predict?model=classify&top=6", picture())
    refused(answered, 400, "bad_request", "The model 'classify' ")


def test_an_empty_body_is_refused(service: Service) -> None:
    refused(service.post("/predict?model=classify", b""), 400, "bad_request", "The body is empty")


@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=x", "application/json"])
def test_a_body_that_wraps_a_picture_is_refused_with_the_line_that_works(service: Service, kind: str) -> None:
    answered = service.post("/predict?model=classify", picture(), content_type=kind)
    refused(answered, 415, "not_an_image", "curl --data-binary @photo.jpg http://service/predict")


def test_a_compressed_body_is_refused_unread(service: Service) -> None:
    answered = service.post("/predict?model=classify", gzip.compress(picture()), content_encoding="gzip")
    refused(answered, 415, "encoded_body", "content encoding 'gzip'")


def test_what_is_no_picture_is_refused(service: Service) -> None:
    refused(service.post("/predict?model=classify", b"<html>"), 415, "not_an_image", "this is no image")


def test_a_damaged_picture_is_refused(service: Service) -> None:
    refused(service.post("/predict?model=classify", picture()[:900]), 422, "damaged_image", "the picture: PNG image")


def test_a_picture_of_too_many_pixels_is_refused(service: Service) -> None:
    file = io.BytesIO()
    Image.new("L", (1000, 1000)).save(file, "PNG")
    answered = service.post("/predict?model=classify", file.getvalue())
    refused(answered, 422, "too_many_pixels", "1000x1000 = 1,000,000 pixels, but at most 250,000")


def test_a_body_that_says_that_it_is_too_large_is_refused(service: Service) -> None:
    answered = service.post("/predict?model=classify", bytes(MOST_BYTES + 1))
    refused(answered, 413, "too_large", "larger than 200,000 bytes")
    assert answered.headers["connection"] == "close"


def test_a_body_that_does_not_say_its_length_is_counted_as_it_comes(service: Service) -> None:
    async def parts():
        for _ in range(1000):
            yield bytes(1000)

    answered = service.ask("POST", "/predict?model=classify", content=parts())
    refused(answered, 413, "too_large", "larger than 200,000 bytes")


def test_a_picture_of_one_part_after_the_other_is_answered(service: Service) -> None:
    async def parts():
        for start in range(0, len(picture()), 500):
            yield picture()[start : start + 500]

    assert service.ask("POST", "/predict?model=classify", content=parts()).status_code == 200


def test_addresses_that_are_not_there_and_methods_that_do_not_fit_are_told_in_the_same_way(service: Service) -> None:
    refused(service.get("/nothing"), 404, "not_found", "There is nothing at this address")
    refused(service.get("/predict"), 405, "wrong_method", "takes another method")
    refused(service.get("/assets/../../secret"), 404, "not_found", "There is nothing")
    refused(service.get("/assets/%2e%2e%2fapp.py"), 404, "not_found", "There is nothing")


def test_a_full_queue_an_answer_that_is_late_and_one_that_is_no_number_are_told_by_their_codes(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised = {each.code: each("A sentence.") for each in EVERY}
    for code, refusal in raised.items():

        async def ask(*_: object, refusal: Exception = refusal) -> None:
            raise refusal

        monkeypatch.setattr(service.models["classify"], "ask", ask)
        answered = service.post("/predict?model=classify", picture())
        refused(answered, refusal.status, code, "A sentence.")
        assert ("retry-after" in answered.headers) == (refusal.status == 503)
    assert {Overloaded.code, NotFinite.code} <= raised.keys()


def test_an_answer_that_takes_longer_than_it_may_is_refused_in_time(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask(*_: object) -> None:
        await asyncio.sleep(2 * WITHIN_S)

    monkeypatch.setattr(service.models, "limits", dataclasses.replace(service.models.limits, deadline=0.2))
    monkeypatch.setattr(service.models["classify"], "ask", ask)
    refused(service.post("/predict?model=classify", picture()), 504, "deadline", "took longer than 0.2 seconds")
    answered = service.ask("POST", "/v2/models/classify/infer", content=v2_json([picture()], "classify").body)
    assert answered.status_code == 504
    assert answered.json()["error"].startswith("deadline: The answer took longer than 0.2 seconds")


@pytest.mark.parametrize("address", ["/predict?model=classify", "/v2/models/classify/infer"])
def test_a_full_queue_refuses_a_body_unread(service: Service, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    read: list[int] = []

    async def parts():
        read.append(1)
        yield picture()

    def check(*_: object) -> None:
        raise Overloaded("The queue is full.")

    monkeypatch.setattr(service.models["classify"], "check", check)
    assert service.ask("POST", address, content=parts()).status_code == 503
    assert not read


def test_a_fault_of_the_server_is_told_without_what_went_wrong_and_logged_with_it(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(service.models["classify"], "results", lambda *_: 1 / 0)
    answered = service.post("/predict?model=classify", picture(), x_request_id="find-me")
    refused(answered, 500, "internal", "A fault of the server")
    assert "find-me" in caplog.text
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(("given", "is_taken"), [("ab-C_1", True), ("a b", False), ("x" * 65, False), ("ä", False)])
def test_an_id_of_a_request_is_echoed_if_it_is_one(service: Service, given: str, is_taken: bool) -> None:
    answered = service.ask("GET", "/healthz", headers={"X-Request-Id": given.encode("latin-1")})
    assert (answered.headers["x-request-id"] == given) == is_taken
    assert answered.headers["x-content-type-options"] == "nosniff"


def test_models_are_listed_with_what_they_are(service: Service) -> None:
    listed = {each["name"]: each for each in service.get("/models").json()}
    assert listed.keys() == {"segment", "detect", "classify", "torch"}
    one = listed["classify"]
    assert (one["task"], one["runtime"], one["precision"]) == ("classify", "onnxruntime", "fp32")
    assert (one["num_classes"], one["classes"], one["max_batch"]) == (6, list(NAMES), 4)
    assert len(one["sha256"]) == 64
    assert one["parity"]["max_error"] < 1e-5


def test_a_service_is_ready_when_every_model_is(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    assert service.get("/healthz").json() == {"live": True}
    assert (service.get("/readyz").status_code, service.get("/readyz").json()["ready"]) == (200, True)
    monkeypatch.setattr(service.models["detect"], "trouble", "its process ended")
    answered = service.get("/readyz")
    assert (answered.status_code, answered.json()["not_ready"]) == (503, {"detect": "its process ended"})
    monkeypatch.setattr(service.models, "is_stopping", True)
    assert service.get("/readyz").json()["not_ready"].keys() == {"segment", "detect", "classify", "torch"}
    assert service.get("/healthz").status_code == 200


def test_metrics_count_requests_by_model_and_code(service: Service) -> None:
    def count(text: str, name: str) -> float:
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))

    answered, batches = 'hybridvit_requests_total{code="200",model="classify"}', "hybridvit_batch_size_count"
    before = service.get("/metrics")
    service.post("/predict?model=classify", picture())
    after = service.get("/metrics").text
    assert before.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert count(after, answered) - count(before.text, answered) == 1
    assert count(after, batches) - count(before.text, batches) == 1
    assert 'hybridvit_queue_length{model="classify"} 0.0' in after
    assert "hybridvit_worker_restarts_total 0.0" in after


@pytest.mark.parametrize("address", ["/predict?model=classify", "/v2/models/classify/infer"])
def test_metrics_have_the_stages_of_every_answer(service: Service, address: str) -> None:
    def seconds() -> dict[tuple[str, str], float]:
        found = re.findall(r'^hybridvit_stage_seconds_(\w+){stage="(\w+)"} (.+)$', service.get("/metrics").text, re.M)
        return {(what, stage): float(value) for what, stage, value in found}

    body = picture() if address.startswith("/predict") else v2_json([picture()], "classify").body
    before = seconds()
    assert service.post(address, body).status_code == 200
    after = seconds()
    for stage in ("decode", "queue", "compute"):
        assert after["count", stage] == before.get(("count", stage), 0) + 1
        assert 0 < after["sum", stage] - before.get(("sum", stage), 0) < WITHIN_S


def test_a_line_of_log_tells_of_a_request_but_of_no_picture(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    service.post("/predict?model=classify&top=1", picture(), x_request_id="seen")
    service.get("/private/holiday.jpg")
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (first["request_id"], first["route"], first["status"]) == ("seen", "/predict", 200)
    assert (first["model"], first["bytes"], first["batch"]) == ("classify", len(picture()), 1)
    assert (second["route"], second["status"], second["error"]) == ("", 404, "not_found")


def test_the_schema_has_every_route_and_every_refusal(service: Service) -> None:
    schema = service.get("/openapi.json").json()
    assert {"/predict", "/models", "/healthz", "/readyz", "/metrics"} <= schema["paths"].keys()
    told = schema["paths"]["/predict"]["post"]["responses"]
    for refusal in EVERY:
        assert refusal.code in told[str(refusal.status)]["description"]
    assert "/openapi.json" in service.get("/docs").text


def test_the_schema_of_predict_has_what_is_asked_and_answered(service: Service) -> None:
    told = service.get("/openapi.json").json()["paths"]["/predict"]["post"]
    assert {each["name"] for each in told["parameters"]} == {each.name for each in dataclasses.fields(Asked)}
    example = told["responses"]["200"]["content"]["application/json"]["example"]
    answered = service.post("/predict?model=classify&top=1", picture()).json()
    assert _kinds(example) == _kinds(answered)


def _kinds(value: object) -> object:
    """The shape of JSON: its names, and the types of its values."""
    if isinstance(value, dict):
        return {name: _kinds(each) for name, each in value.items()}
    return [_kinds(each) for each in value] if isinstance(value, list) else type(value)
