"""The folder of the page: what is in it, what is refused, and where ONNX Runtime Web comes from."""

import hashlib
import json
import re
import tarfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from hybridvit.bench_page import ort_web, write_page
from hybridvit.bench_page.entry import NOT_ON_WEBGPU, check_spec
from hybridvit.bench_page.fixed_input import fixed_input
from hybridvit.bench_page.operators import operators_of
from hybridvit.bench_page.ort_web import Build, ort_web_files
from hybridvit.bench_page.page import STATIC
from hybridvit.errors import CheckpointError, UsageError
from hybridvit.export.spec import GraphSpec
from hybridvit.measure.result import COLUMNS

NAMES = ("a.mjs", "b.wasm")


def stand_in(name: str) -> bytes:
    return f"stands for {name}".encode()


@pytest.fixture(autouse=True)
def _stand_ins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Small files in place of ONNX Runtime Web's, an empty cache, and no npm."""
    files = {name: hashlib.sha256(stand_in(name)).hexdigest() for name in NAMES}
    monkeypatch.setattr(ort_web, "WASM", Build(module="a.mjs", files=files))
    monkeypatch.setattr(ort_web, "WEBGPU", {})
    monkeypatch.setenv("HYBRIDVIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def ort(tmp_path: Path) -> Path:
    """A folder with the stand-ins."""
    folder = tmp_path / "ort"
    (folder / "dist").mkdir(parents=True)
    for name in NAMES:
        (folder / "dist" / name).write_bytes(stand_in(name))
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file from elsewhere: the mean colour of an image of 32 x 32 pixels, as ten scores."""
    path = tmp_path_factory.mktemp("small") / "small.onnx"
    weights = onnx.numpy_helper.from_array(np.arange(30, dtype=np.float32).reshape(3, 10) / 30, "weights")
    nodes = [
        onnx.helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        onnx.helper.make_node("Flatten", ["pooled"], ["colour"]),
        onnx.helper.make_node("MatMul", ["colour", "weights"], ["logits"]),
    ]
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("images", [1, 3, 32, 32]), ("logits", [1, 10]))
    ]
    graph = onnx.helper.make_graph(nodes, "small", ends[:1], ends[1:], [weights])
    onnx.save(onnx.helper.make_model(graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 20)]), path)
    return path


def test_the_folder_holds_the_page_the_runtime_the_model_and_its_answers(
    small: Path, ort: Path, tmp_path: Path
) -> None:
    page = write_page(tmp_path / "page", [f"mine={small}"], ort=ort)
    folder = page.folder
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert {path.name for path in STATIC.iterdir()} <= {path.name for path in folder.iterdir()}
    assert manifest["builds"]["wasm"]["files"] == {name: len(stand_in(name)) for name in NAMES}
    (model,) = manifest["models"]
    assert (folder / model["file"]).read_bytes() == small.read_bytes()
    assert model["sha256"][:12] in model["file"]
    measured = {name for name in COLUMNS if name.endswith(("_ms", "_s", "_mib", "rounds", "calls", "_per_call"))}
    measured |= {"runtime", "device", "threads", "processes", "process_spread"}
    assert set(COLUMNS) - measured == set(model["record"])
    assert (model["record"]["model"], model["record"]["image_size"]) == ("mine", "32x32")
    session = onnxruntime.InferenceSession(small)
    (logits,) = session.run(None, {"images": fixed_input((1, 3, 32, 32))})
    (reference,) = model["reference"]
    assert (reference["name"], reference["size"], reference["step"]) == ("logits", 10, 1)
    np.testing.assert_allclose(reference["values"], logits.ravel(), rtol=1e-5)
    assert page.models == ("mine",)
    write_page(folder, [small], ort=ort)  # an earlier page is replaced
    assert json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["models"][0]["record"]["model"] == "small"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("models", "text"),
    [
        ([], "There is nothing to measure. Name at least one .onnx file"),
        (["no.onnx"], "There is no file no.onnx. Check the path, or export one"),
        (["m.xml"], "m.xml is no .onnx file, but the page runs these alone. Export for it"),
        (["{small}", "small={small}"], r"Two models are called small. Name one of them yourself: NAME=FILE"),
    ],
)
def test_what_cannot_be_measured_is_refused_and_nothing_is_written(
    models: list[str], text: str, small: Path, ort: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=text):
        write_page(tmp_path / "page", [each.format(small=small) for each in models], ort=ort)
    assert not (tmp_path / "page").exists()


def test_a_folder_of_something_else_is_left_as_it_is(small: Path, ort: Path, tmp_path: Path) -> None:
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match=r"holds other files, which would be lost"):
        write_page(tmp_path / "page", [small], ort=ort)
    assert (tmp_path / "page" / "thesis.tex").read_text() == "years of work"


def test_files_for_several_images_and_for_chosen_classes_are_refused() -> None:
    with pytest.raises(UsageError, match=r"m.onnx takes 8 images at a time.* --batch 1"):
        check_spec(GraphSpec(image_size=(32, 32), batch=8), Path("m.onnx"))
    with pytest.raises(UsageError, match=r"m.onnx gives the 5 most probable classes.* without --top_k"):
        check_spec(GraphSpec(image_size=(32, 32), top_k=5), Path("m.onnx"))
    check_spec(GraphSpec(image_size=(32, 32)), Path("m.onnx"))


def test_operators_are_read_without_the_package_of_onnx(small: Path) -> None:
    content = small.read_bytes()
    assert operators_of(content) == {"GlobalAveragePool", "Flatten", "MatMul"}
    assert not operators_of(content) & NOT_ON_WEBGPU
    with pytest.raises(CheckpointError, match="cannot be read"):
        operators_of(content[:100])


def test_the_runtime_comes_from_a_folder_or_an_archive_and_is_known_by_its_digest(ort: Path, tmp_path: Path) -> None:
    assert set(ort_web_files(ort)) == set(NAMES)
    with pytest.raises(UsageError, match=r"there is no npm to fetch it with. Run `npm pack onnxruntime-web@1.30.0`"):
        ort_web_files()
    archive = tmp_path / "onnxruntime-web-1.30.0.tgz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(ort / "dist", arcname="package/dist")
    cached = ort_web_files(archive)
    assert cached == ort_web_files()  # from now on it is in the cache
    cached["a.mjs"].write_bytes(b"something else")
    with pytest.raises(UsageError, match="there is no npm"):
        ort_web_files()
    (ort / "dist" / "b.wasm").write_bytes(b"something else")
    with pytest.raises(UsageError, match=r"b.wasm is not that of onnxruntime-web@1.30.0: its SHA-256 is another"):
        ort_web_files(ort)
    (ort / "dist" / "b.wasm").unlink()
    with pytest.raises(UsageError, match=r"has no b.wasm, which the page needs"):
        ort_web_files(ort)
    archive.write_bytes(b"no archive")
    with pytest.raises(UsageError, match=r"is no archive of onnxruntime-web"):
        ort_web_files(archive)


def test_the_service_worker_keeps_files_under_the_version_that_is_written() -> None:
    said = re.search(r"onnxruntime-web ([\d.]+)", (STATIC / "isolate.js").read_text(encoding="utf-8"))
    assert said is not None
    assert said[1] == ort_web.VERSION
