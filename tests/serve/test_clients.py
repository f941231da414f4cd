"""Clients of others work with a service: Triton's, and KServe's by what it sends."""

import base64
import json
from collections.abc import Iterator

import numpy as np
import pytest
from asking import HEADER_LENGTH, Ask, Caller, array_of
from serving import NAMES, Process, picture

from hybridvit.predictor import Predictor

triton = pytest.importorskip("tritonclient.http")
SAME = {"rtol": 1e-5, "atol": 1e-6}
PICTURES = [picture(seed) for seed in range(3)]


@pytest.fixture(scope="module")
def predictor(onnx_file) -> Predictor:
    return Predictor(onnx_file)


@pytest.fixture
def client(process: Process) -> Iterator:
    with triton.InferenceServerClient(f"127.0.0.1:{process.port}") as client:
        yield client


def pictures_of_triton(**options: object):
    """The pictures as an input of Triton's client."""
    given = triton.InferInput("image", [len(PICTURES)], "BYTES")
    given.set_data_from_numpy(np.array(PICTURES, object), **options)
    return given


def test_triton_asks_for_health_and_metadata(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("m")
    assert client.is_model_ready("m.tensor", "1")
    assert not client.is_model_ready("x")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    assert [each["name"] for each in client.get_model_metadata("m")["outputs"]] == [
        "probabilities",
        "indices",
        "labels",
    ]


def test_triton_sends_pictures_and_reads_answers_as_bytes(client, predictor):
    answer = client.infer("m", [pictures_of_triton()], request_id="42")
    assert answer.get_response()["id"] == "42"
    wanted = predictor(PICTURES)
    np.testing.assert_array_equal(answer.as_numpy("indices"), [result.indices for result in wanted])
    np.testing.assert_allclose(answer.as_numpy("probabilities"), [each.probabilities for each in wanted], **SAME)
    assert answer.as_numpy("labels").tolist() == [[name.encode() for name in result.names] for result in wanted]


def test_triton_reads_answers_as_json_where_it_asks_for_that(client, predictor):
    outputs = [triton.InferRequestedOutput(name, binary_data=name == "indices") for name in ("labels", "indices")]
    answer = client.infer("m", [pictures_of_triton()], outputs=outputs)
    labels, indices = answer.get_response()["outputs"]
    assert (len(labels["data"]), indices["parameters"]) == (15, {"binary_data_size": 120})
    wanted = predictor(PICTURES)
    assert answer.as_numpy("labels").ravel().tolist() == [name for result in wanted for name in result.names]
    assert answer.as_numpy("probabilities") is None


@pytest.mark.parametrize("is_binary", [True, False])
def test_triton_sends_tensors_in_both_forms(client, predictor, is_binary):
    images = np.stack([predictor.prepare(content).image for content in PICTURES])
    given = triton.InferInput("images", list(images.shape), "FP32")
    given.set_data_from_numpy(images, binary_data=is_binary)
    output = triton.InferRequestedOutput("logits", binary_data=is_binary)
    logits = client.infer("m.tensor", [given], "1", outputs=[output]).as_numpy("logits")
    np.testing.assert_allclose(logits, predictor.runner(images)["logits"], rtol=1e-5, atol=1e-5)


def test_triton_asks_without_waiting(client, predictor):
    asked = [client.async_infer("m", [pictures_of_triton()]) for _ in range(4)]
    wanted = [result.indices[0] for result in predictor(PICTURES)]
    assert all(each.get_result().as_numpy("indices")[:, 0].tolist() == wanted for each in asked)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_triton_is_told_that_compressed_requests_are_not_read(client, algorithm):
    with pytest.raises(triton.InferenceServerException, match=f"encoded_body: .*'{algorithm}'") as caught:
        client.infer("m", [pictures_of_triton()], request_compression_algorithm=algorithm)
    assert caught.value.status() == "415"


def test_triton_shows_what_is_wrong(client):
    unknown = [triton.InferRequestedOutput("label")]
    with pytest.raises(triton.InferenceServerException, match=r"'m' has no output 'label'. Nearest: 'labels'"):
        client.infer("m", [pictures_of_triton()], outputs=unknown)
    with pytest.raises(triton.InferenceServerException, match="no_such_model: "):
        client.get_model_metadata("x")
    with pytest.raises(triton.InferenceServerException, match="'priority', which means nothing here"):
        client.infer("m", [pictures_of_triton()], priority=1)


def of_kserve(entry: dict, tail: bytes = b"", *, model: str) -> Ask:
    """A request as `kserve.InferenceRESTClient.infer` (0.21) sends it: an id, the model's name, nothing of outputs."""
    body = json.dumps(
        {"id": "0f0bfb26-6bd4-4ad4-a5d8-4a2e9bb1a0a9", "model_name": model, "inputs": [entry]}, separators=(",", ":")
    ).encode()
    binary = {HEADER_LENGTH: str(len(body)), "content-type": "application/octet-stream"} if tail else {}
    return Ask(path=f"/v2/models/{model}/infer", body=body + tail, headers=binary | {"accept": "*/*"})


def test_kserve_asks_for_health(process):
    service = Caller(process.port)
    assert service.get("/v2/health/live").json.get("live") is True
    assert service.get("/v2/health/ready").json.get("ready") is True
    assert service.get("/v2/models/m/ready").status == 200
    assert service.get("/v2/models/x/ready").status == 404


def test_kserve_sends_json_and_reads_json(process, predictor):
    data = [base64.b64encode(content).decode() for content in PICTURES]
    entry = {"name": "image", "shape": [3], "datatype": "BYTES", "data": data}
    said = Caller(process.port)(of_kserve(entry, model="m"))
    assert (said.status, said.header_bytes) == (200, None)
    assert said.json["id"] == "0f0bfb26-6bd4-4ad4-a5d8-4a2e9bb1a0a9"
    wanted = predictor(PICTURES)
    assert array_of(said, "indices").tolist() == [list(result.indices) for result in wanted]
    np.testing.assert_allclose(array_of(said, "probabilities"), [each.probabilities for each in wanted], **SAME)


@pytest.mark.parametrize("is_binary", [True, False])
def test_kserve_sends_tensors_in_both_forms_and_reads_json(process, predictor, is_binary):
    images = np.stack([predictor.prepare(content).image for content in PICTURES])
    entry: dict[str, object] = {"name": "images", "shape": list(images.shape), "datatype": "FP32"}
    tail = images.tobytes() if is_binary else b""
    entry |= {"parameters": {"binary_data_size": len(tail)}} if is_binary else {"data": images.ravel().tolist()}
    said = Caller(process.port)(of_kserve(entry, tail, model="m.tensor"))
    assert (said.status, said.header_bytes) == (200, None)
    np.testing.assert_allclose(array_of(said, "logits"), predictor.runner(images)["logits"], rtol=1e-5, atol=1e-5)
    assert array_of(said, "logits").shape == (3, len(NAMES))


def test_kserve_shows_what_is_wrong(process):
    said = Caller(process.port)(of_kserve({"name": "x", "shape": [1], "datatype": "INT8", "data": [1]}, model="m"))
    assert said.status == 400
    assert said.json["error"] == "bad_request: The inputs are 'x', but 'm' takes 'image'."
