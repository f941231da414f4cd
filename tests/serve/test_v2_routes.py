"""The routes of the Open Inference Protocol v2, for models of several tasks and kinds of file."""

import base64
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from asking import HEADER_LENGTH, Said, array_of, v2_binary, v2_json
from serving import NAMES, Service, classifier, picture
from trained_like import trained_like

import hybridvit
from hybridvit.predictor import Predictor
from hybridvit.serve.limits import Limits
from hybridvit.serve.tensors import as_bytes

QUEUE = 8


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A classifier, one of raw pixels, a model of another task, and a file that gives no answers."""
    folder = tmp_path_factory.mktemp("v2")
    head = {"pyramid_channels": 8, "channels": 8}
    segmenter = hybridvit.create_model("fastvit_debug", task="segment", head_options=head, num_classes=3)
    hybridvit.save_checkpoint(trained_like(segmenter), folder / "segment.safetensors")
    return {
        "m": classifier(folder / "m.onnx"),
        "raw": classifier(folder / "raw.onnx", uint8=True),
        "features": classifier(folder / "features.onnx", returns="features"),
        "steep": steep(folder / "steep.safetensors"),
        "segment": folder / "segment.safetensors",
    }


def steep(path: Path) -> Path:
    """A classifier whose logits overflow for values that no picture has, whatever the processor adds up first."""
    model = trained_like(hybridvit.create_model("fastvit_debug", num_classes=len(NAMES)))
    with torch.no_grad():
        model.head.fc.weight *= 1e6
    hybridvit.save_checkpoint(model, path)
    return path


@pytest.fixture(scope="module")
def service(paths: dict[str, Path]) -> Iterator[Service]:
    service = Service(paths, Limits(max_batch=4, queue=QUEUE))
    yield service
    service.close()


def said(response) -> Said:
    length = response.headers.get(HEADER_LENGTH)
    return Said(
        status=response.status_code, body=response.content, header_bytes=None if length is None else int(length)
    )


def sent(service: Service, ask) -> Said:
    return said(service.ask(ask.method, ask.path, content=ask.body, headers=ask.headers))


def tensor(service: Service, name: str, values: np.ndarray, datatype: str = "FP32", **more: object) -> Said:
    """The answer to a tensor as bytes."""
    tail = as_bytes(values)
    entry = {
        "name": "images",
        "shape": list(values.shape),
        "datatype": datatype,
        "parameters": {"binary_data_size": len(tail)},
    }
    header = json.dumps({"inputs": [entry], **more}).encode()
    headers = {HEADER_LENGTH: str(len(header))}
    return said(service.ask("POST", f"/v2/models/{name}/infer", content=header + tail, headers=headers))


def error_of(said: Said) -> str:
    assert list(said.json) == ["error"]
    return said.json["error"]


def test_the_server_tells_what_it_is_and_that_it_lives(service):
    assert service.get("/v2").json() == {
        "name": "hybridvit",
        "version": hybridvit.__version__,
        "extensions": ["binary_tensor_data"],
    }
    assert service.get("/v2/health/live").json() == {"live": True}
    assert service.get("/v2/health/ready").json() == {"ready": True}
    for place in ("m", "m.tensor", "m/versions/1", "m.tensor/versions/1"):
        assert service.get(f"/v2/models/{place}/ready").json()["ready"] is True


def test_metadata_describe_both_names_of_a_model(service):
    told = service.get("/v2/models/m").json()
    assert (told["name"], told["versions"], told["platform"]) == ("m", ["1"], "hybridvit_onnxruntime")
    assert told["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1], "parameters": {"json": "base64"}}]
    assert [(each["name"], each["datatype"], each["shape"]) for each in told["outputs"]] == [
        ("probabilities", "FP32", [-1, -1]),
        ("indices", "INT64", [-1, -1]),
        ("labels", "BYTES", [-1, -1]),
    ]
    told = service.get("/v2/models/m.tensor/versions/1").json()
    assert told["inputs"] == [{"name": "images", "datatype": "FP32", "shape": [-1, 3, 32, 32]}]
    assert told["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": [-1, len(NAMES)]}]
    assert service.get("/v2/models/raw.tensor").json()["inputs"] == [
        {"name": "images", "datatype": "UINT8", "shape": [-1, 32, 32, 3]}
    ]


@pytest.mark.parametrize("form", [v2_json, v2_binary])
def test_several_pictures_are_answered_in_their_order_as_predict_does(service, paths, form):
    pictures = [picture(seed) for seed in range(5)]
    answer = sent(service, form(pictures, "m", id="seven"))
    assert answer.status == 200
    assert (answer.json["id"], answer.json["model_name"], answer.json["model_version"]) == ("seven", "m", "1")
    wanted = Predictor(paths["m"])(pictures)
    np.testing.assert_array_equal(array_of(answer, "indices"), [result.indices for result in wanted])
    np.testing.assert_allclose(
        array_of(answer, "probabilities"), [result.probabilities for result in wanted], rtol=1e-5, atol=1e-6
    )
    labels = sent(service, v2_json(pictures, "m", outputs=[{"name": "labels"}])).json["outputs"]
    assert labels[0]["data"] == [name for result in wanted for name in result.names]


def test_only_outputs_that_are_asked_for_come_and_in_that_order(service):
    answer = sent(service, v2_json([picture()], "m", outputs=[{"name": "labels"}, {"name": "indices"}]))
    assert [each["name"] for each in answer.json["outputs"]] == ["labels", "indices"]
    answer = sent(service, v2_json([picture()], "m", parameters={"top": 2}))
    assert [each["shape"] for each in answer.json["outputs"]] == [[1, 2]] * 3


def test_a_model_of_another_task_gives_its_answer_as_json_and_its_files(service, paths):
    names = [each["name"] for each in service.get("/v2/models/segment").json()["outputs"]]
    assert names == ["answer", "labels.png"]
    (wanted,) = Predictor(paths["segment"])([picture()])
    answer = sent(service, v2_json([picture()], "segment"))
    text, file = answer.json["outputs"]
    assert json.loads(text["data"][0]) == wanted.to_dict()
    assert file["parameters"] == {"base64": True}
    assert base64.b64decode(file["data"][0]) == wanted.files()["labels.png"]
    only = sent(service, v2_json([picture()], "segment", outputs=[{"name": "answer"}]))
    assert [each["name"] for each in only.json["outputs"]] == ["answer"]


def test_tensors_are_answered_as_the_runtime_does(service, paths):
    predictor = Predictor(paths["m"])
    images = np.stack([predictor.prepare(picture(seed)).image for seed in range(3)])
    answer = tensor(service, "m.tensor", images, parameters={"binary_data_output": True})
    np.testing.assert_allclose(array_of(answer, "logits"), predictor.runner(images)["logits"], rtol=1e-5, atol=1e-5)
    assert tensor(service, "m.tensor", images).json["outputs"][0]["shape"] == [3, len(NAMES)]


def test_raw_pixels_are_taken_as_decoders_give_them(service, paths):
    predictor = Predictor(paths["raw"])
    floats = predictor.prepare(picture()).image[None]
    pixels = np.rint(floats).clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1)  # b h w c
    answer = tensor(service, "raw.tensor", pixels, "UINT8")
    np.testing.assert_allclose(array_of(answer, "logits"), predictor.runner(floats)["logits"], rtol=1e-5, atol=1e-5)


def test_a_file_that_gives_no_answers_is_offered_as_tensors_alone(service):
    response = service.get("/v2/models/features")
    assert response.status_code == 404
    assert "Ask 'features.tensor'" in response.json()["error"]
    (output,) = service.get("/v2/models/features.tensor").json()["outputs"]
    answer = tensor(service, "features.tensor", np.zeros((2, 3, 32, 32), np.float32))
    assert answer.json["outputs"][0]["name"] == output["name"] == "features"


BAD = {
    "no such model": ("x", {}, 404, "no_such_model: There is no model 'x'"),
    "no such version": ("m/versions/2", {}, 404, "no_such_model: There is no version '2'"),
    "no such output": ("m", {"outputs": [{"name": "label"}]}, 400, "no output 'label'. Nearest: 'labels'"),
    "pictures to the graph": ("m.tensor", {}, 400, "takes 'images'"),
    "too many entries": ("m", {"parameters": {"top": 1001}}, 400, "at most 1000"),
    "a broken picture": ("m", {"pictures": [picture(), picture()[:-200]]}, 422, "damaged_image: "),
    "no picture": ("m", {"pictures": [b"hello"]}, 415, "not_an_image: "),
    "no pictures": ("m", {"pictures": []}, 400, "has no images"),
    "more than can wait": ("m", {"pictures": [picture()] * (QUEUE + 1)}, 400, "bad_request: The request has 9 images"),
}


@pytest.mark.parametrize("case", BAD)
def test_errors_are_said_as_clients_show_them(service, case):
    place, options, status, words = BAD[case]
    options = dict(options)
    ask = v2_json(options.pop("pictures", [picture()]), "m", **options)
    answer = sent(service, dataclasses.replace(ask, path=f"/v2/models/{place}/infer"))
    assert answer.status == status
    assert words in error_of(answer)


@pytest.mark.parametrize(
    ("shape", "dtype", "words"),
    [
        ((1, 3, 32, 31), np.float32, "takes FP32 [-1, 3, 32, 32], where -1 is any number"),
        ((3, 32, 32), np.float32, "takes FP32"),
        ((1, 3, 32, 32), np.float64, "is FP64"),
        ((0, 3, 32, 32), np.float32, "has no images"),
    ],
)
def test_tensors_of_another_shape_or_type_are_refused(service, shape, dtype, words):
    answer = tensor(service, "m.tensor", np.zeros(shape, dtype), {np.float64: "FP64"}.get(dtype, "FP32"))
    assert answer.status == 400
    assert words in error_of(answer)


def test_values_that_no_picture_has_are_no_fault_of_the_server(service):
    answer = tensor(service, "steep.tensor", np.full((1, 3, 32, 32), 3e38, np.float32))
    assert answer.status == 400
    assert "not finite" in error_of(answer)
    assert tensor(service, "steep.tensor", np.ones((1, 3, 32, 32), np.float32)).status == 200
    assert tensor(service, "m.tensor", np.zeros((1, 3, 32, 32), np.float32), parameters={"top": 3}).status == 400


@pytest.mark.parametrize("length", ["x", "-1", "999999999", "1e3", "", "99999999999999999999"])
def test_a_header_of_no_length_or_of_too_much_is_refused(service, length):
    ask = v2_binary([picture()], "m")
    answer = sent(service, dataclasses.replace(ask, headers=ask.headers | {HEADER_LENGTH: length}))
    assert answer.status == 400
    assert "bad_request: " in error_of(answer)


def test_addresses_and_methods_that_are_not_there_are_said_as_clients_show_them(service):
    assert service.get("/v2/nothing").json()["error"].startswith("not_found: ")
    assert service.get("/v2/models/m/infer").json()["error"].startswith("wrong_method: ")
    assert service.post("/v2", b"").json()["error"].startswith("wrong_method: ")


def test_more_json_than_is_parsed_is_too_large(service):
    answer = said(service.post("/v2/models/m/infer", b" " * 1_000_001))
    assert answer.status == 413
    assert error_of(answer).startswith("too_large: The JSON has 1,000,001 bytes")
