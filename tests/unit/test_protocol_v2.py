"""The codec of the Open Inference Protocol v2: what is written is read again, and no request does harm."""

import base64
import contextlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as of_numpy

from hybridvit.serve.protocol_v2 import MOST_JSON_BYTES, Request, TooMuchJSON, read_request, write_answer
from hybridvit.serve.tensors import BYTES, DTYPES, BadTensors, Tensor, as_bytes, bytes_array

SHAPES = of_numpy.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
NUMBERS = st.sampled_from(sorted(DTYPES)).flatmap(
    lambda name: of_numpy.arrays(
        DTYPES[name],
        SHAPES,
        elements={"allow_nan": False, "allow_infinity": False} if DTYPES[name].kind == "f" else None,
    )
)
STRINGS = st.lists(st.binary(max_size=20), max_size=5).map(bytes_array)
PLAIN = Request(inputs=(), outputs={})


def described(name: str, values: np.ndarray, **more: object) -> dict[str, object]:
    """An input of a request."""
    return {
        "name": name,
        "shape": list(values.shape),
        "datatype": Tensor(name=name, values=values).datatype,
        **more,
    }


def binary(inputs: dict[str, np.ndarray], **more: object) -> tuple[bytes, int]:
    """A request with its tensors as bytes, and the length of its JSON."""
    parts = {name: as_bytes(values) for name, values in inputs.items()}
    entries = [
        described(name, values, parameters={"binary_data_size": len(parts[name])}) for name, values in inputs.items()
    ]
    header = json.dumps({"inputs": entries, **more}).encode()
    return b"".join([header, *parts.values()]), len(header)


def in_json(inputs: list[dict[str, object]], **more: object) -> bytes:
    return json.dumps({"inputs": inputs, **more}).encode()


def one(data: object, *, shape: object = (1,), datatype: object = "FP32", **more: object) -> bytes:
    """A request in JSON with one input."""
    return in_json([{"name": "images", "shape": shape, "datatype": datatype, "data": data, **more}])


def refused(body: bytes, header_bytes: int | None = None) -> str:
    """What is said of a request that is refused."""
    with pytest.raises(BadTensors) as caught:
        read_request(body, header_bytes)
    return str(caught.value)


@given(st.dictionaries(st.text("abc", min_size=1), NUMBERS | STRINGS, min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_tensors_as_bytes_are_read_as_they_are(tensors):
    body, size = binary(tensors, id="7", outputs=[{"name": "x"}], parameters={"binary_data_output": True, "top": 2})
    request = read_request(body, size)
    assert (request.id, request.top, request.outputs, request.is_binary) == ("7", 2, {"x": True}, True)
    assert [each.name for each in request.inputs] == list(tensors)
    for tensor in request.inputs:
        np.testing.assert_array_equal(tensor.values, tensors[tensor.name])
        assert tensor.values.dtype == tensors[tensor.name].dtype


@given(NUMBERS, st.booleans())
@settings(max_examples=60, deadline=None)
def test_tensors_in_json_are_read_as_they_are(values, flat):
    data = values.ravel().tolist() if flat else values.tolist()
    if values.shape == () and not flat:
        data = [data]
    (tensor,) = read_request(in_json([described("x", values, data=data)])).inputs
    np.testing.assert_array_equal(tensor.values, values)
    assert tensor.values.dtype == values.dtype


@given(STRINGS)
@settings(max_examples=60, deadline=None)
def test_files_in_json_are_base64(strings):
    data = [base64.b64encode(each).decode() for each in strings.tolist()]
    (tensor,) = read_request(in_json([described("image", strings, data=data)])).inputs
    np.testing.assert_array_equal(tensor.values, strings)


@given(st.lists(NUMBERS | STRINGS, max_size=4), st.booleans(), st.none() | st.text(max_size=5))
@settings(max_examples=60, deadline=None)
def test_answers_are_what_a_client_reads(arrays, is_binary, identity):
    outputs = [Tensor(name=f"out{place}", values=values) for place, values in enumerate(arrays)]
    request = Request(inputs=(), outputs={}, is_binary=is_binary, id=identity)
    body, size = write_answer(outputs, model_name="m", model_version="1", request=request)
    answer = json.loads(body[:size])
    assert answer.get("id") == identity
    assert (answer["model_name"], answer["model_version"]) == ("m", "1")
    assert (size is None) == (not (is_binary and outputs))
    place = size or len(body)
    for tensor, entry in zip(outputs, answer["outputs"], strict=True):
        assert (entry["name"], entry["shape"], entry["datatype"]) == (
            tensor.name,
            list(tensor.values.shape),
            tensor.datatype,
        )
        if is_binary:
            length = entry["parameters"]["binary_data_size"]
            assert body[place : place + length] == as_bytes(tensor.values)
            place += length
        elif tensor.datatype == BYTES:
            is_base64 = entry.get("parameters") == {"base64": True}
            assert [base64.b64decode(each) if is_base64 else each.encode() for each in entry["data"]] == (
                tensor.values.tolist()
            )
        else:
            np.testing.assert_array_equal(
                np.array(entry["data"], tensor.values.dtype).reshape(entry["shape"]), tensor.values
            )
    assert place == len(body)


def test_strings_of_bytes_stand_behind_their_length():
    assert as_bytes(bytes_array([b"ab", b""])) == b"\x02\0\0\0ab\0\0\0\0"


def test_only_outputs_that_are_asked_for_as_bytes_are_bytes():
    request = Request(inputs=(), outputs={"a": False, "b": True})
    outputs = [Tensor(name=name, values=np.float32([1.5])) for name in "ab"]
    body, size = write_answer(outputs, model_name="m", model_version="1", request=request)
    first, second = json.loads(body[:size])["outputs"]
    assert first["data"] == [1.5]
    assert second["parameters"] == {"binary_data_size": 4}
    assert body[size:] == np.float32(1.5).tobytes()


@given(st.binary(max_size=300), st.none() | st.integers(0, 400))
@settings(max_examples=60, deadline=None)
def test_bytes_of_no_request_are_refused(body, size):
    refused(body, size)


MUTATIONS = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4)


@given(MUTATIONS, st.integers(-40, 40), st.integers(0, 400))
@settings(max_examples=150, deadline=None)
def test_a_damaged_request_is_refused_or_is_another_request(mutations, shift, cut):
    body, size = binary({"images": np.ones((2, 3), np.float32), "image": bytes_array([b"abc", b""])}, id="x")
    damaged = bytearray(body)
    for place, value in mutations:
        damaged[place % len(damaged)] = value
    with contextlib.suppress(BadTensors):
        request = read_request(bytes(damaged[: max(1, len(damaged) - cut)]), max(0, size + shift))
        assert sum(each.values.size for each in request.inputs) <= len(body)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "no JSON"),
        (b"[]", "The request is no object"),
        (b'{"inputs": NaN}', "NaN is no number"),
        (b"\xff\xfe{}", "no JSON"),
        (b'{"inputs": []}', "no inputs"),
        (b'{"inputs": [1]}', r"inputs[0] is no object"),
        (in_json([{"name": "a"}] * 65), "at most 64"),
        (in_json([], output=[]), "'output', which means nothing here. Nearest: 'outputs'"),
        (in_json([], parameters={"priority": 1}), "'priority', which means nothing"),
        (in_json([{}]), "no name"),
        (in_json([{"name": "x" * 101}]), "at most 100 printable letters"),
        (in_json([{"name": "x"}], id=3), "id is no string"),
        (in_json([{"name": "x"}], parameters={"top": 0}), "top is no whole number from 1"),
        (in_json([{"name": "x"}], parameters={"top": True}), "top is no whole number from 1"),
        (in_json([{"name": "x"}], parameters={"binary_data_output": 1}), "neither true nor false"),
        (one([1.0], datatype="FP8"), "no datatype that there is. Send BOOL"),
        (one([1.0], datatype=["FP32"]), "no datatype"),
        (one([1.0], shape=None), "The shape of input 'images' is no list"),
        (one([1.0], shape=[1] * 9), "at most 8"),
        (one([1.0], shape=[-1]), "no whole number from 0"),
        (one([1.0], shape=[True]), "no whole number"),
        (one([1.0], shape=[1.0]), "no whole number"),
        (one([1.0], shape=[1 << 20, 1 << 20]), "more than 1,073,741,824"),
        (one([1.0], shape=[1 << 40]), "no whole number from 0 to 1,073,741,824"),
        (one(None), "not one of data and binary_data_size"),
        (one([1.0], parameters={"binary_data_size": 0}), "not one of data and binary_data_size"),
        (one([1.0], parameters={"binary_data_size": 4}), "are 4 in all, but 0 bytes follow"),
        (one([1.0], parameters={"shared_memory_region": "a"}), "'shared_memory_region', which means nothing"),
        (one([1.0, 2.0]), "has 2 values, but its shape makes 1"),
        (one([[1.0], [2.0, 3.0]], shape=[2, 2]), "not of its shape [2, 2]"),
        (one([[[1.0]]], shape=[1, 1]), "no FP32"),
        (one(["1"]), "no FP32"),
        (one([True]), "no FP32"),
        (one([1.5], datatype="INT8"), "no INT8"),
        (one([256], datatype="UINT8"), "outside of UINT8"),
        (one([1e39]), "outside of FP32"),
        (one([10**400]), "outside of FP32"),
        (b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1e999]}]}', "outside of FP32"),
        (b'{"inputs": ' + b"9" * 5000 + b"}", "no JSON"),
        (one([1], datatype="BYTES"), "no string"),
        (one(["a"], datatype="BYTES"), "no base64"),
        (one(["é"], datatype="BYTES"), "no base64"),
        (one(["YQ==\n"], datatype="BYTES"), "one line"),
        (one([1.0], more="\ud800"), "'more'"),
        (in_json([{"name": "\ud800", "shape": [1]}]), "no name of at most 100 printable"),
        (in_json([{"name": "a"}, {"name": "a"}]), "a name twice"),
        (in_json([{"name": "a"}], outputs=[{"name": "y", "parameters": {"classification": 3}}]), "'classification'"),
        (b'{"id": ' + b"[" * 500 + b"]" * 500 + b"}", "more than 32 levels"),
        (b"[" * 200_000, "no JSON"),
    ],
)
def test_what_is_wrong_with_a_request_is_said(body, words):
    assert words in refused(body)


def test_bytes_that_are_too_few_or_too_many_are_refused():
    body, size = binary({"images": np.ones((2, 2), np.float32)})
    assert "Inference-Header-Content-Length is 900" in refused(body, 900)
    assert "are 16 in all, but 15 bytes follow" in refused(body[:-1], size)
    entry = described("images", np.ones(3, np.float32), parameters={"binary_data_size": 16})
    header = in_json([entry])
    assert "16 bytes, but its shape and datatype make 12" in refused(header + bytes(16), len(header))


@pytest.mark.parametrize(
    ("count", "tail", "words"),
    [
        (1, b"\x05\0\0\0abc", "ends within its string 0"),
        (1, b"\x01\0\0\0abc", "2 bytes behind its last string"),
        (1, b"\xff\xff\xff\xff", "ends within"),
        (2, b"\0\0\0\0", "too few for 2 strings"),
        (1_000_000, b"\0\0\0\0", "too few for 1000000"),
        (1, b"ab", "too few for 1"),
    ],
)
def test_strings_whose_lengths_are_wrong_are_refused(count, tail, words):
    entry = {"name": "image", "shape": [count], "datatype": "BYTES", "parameters": {"binary_data_size": len(tail)}}
    header = in_json([entry])
    assert words in refused(header + tail, len(header))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(value):
    body, size = binary({"images": np.float32([1, value])})
    assert "not finite" in refused(body, size)


def test_more_json_than_is_parsed_is_refused():
    with pytest.raises(TooMuchJSON, match=r"at most 1,000,000 are read. Send tensors as bytes"):
        read_request(b" " * (MOST_JSON_BYTES + 1))


def test_lone_surrogates_of_an_id_are_sent_back_as_they_came():
    request = read_request(one([1.0])[:-1] + b', "id": "\\ud800"}')
    body, _ = write_answer([], model_name="m", model_version="1", request=request)
    assert json.loads(body)["id"] == "\ud800"
