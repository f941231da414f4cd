"""The bench in the browser: what it measures is right, told, and read again by `hybridvit bench`."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported import exported
from fresh import ENVIRONMENT, output_of
from PIL import Image
from static_host import static_host

from hybridvit.cli import main
from hybridvit.loading import open_runner
from hybridvit.measure.counts import counted
from hybridvit.measure.result import COLUMNS, read_result
from hybridvit.measure.subject import find_subject

DOCS = Path(__file__).parents[2] / "docs"
ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
QUICK = "start&rounds=8&calls=1&webgpu=0"
KEYS = {"format", "bench", "skipped", "settings", "conditions", "machine", "complete"}
OF_A_MINUTE = 120_000  # milliseconds, on a machine with other work


def model_of(folder: Path) -> Path:
    """The only model of a page."""
    (file,) = (folder / "models").iterdir()
    return file


def finished(page: Any) -> None:
    page.wait_for_selector("#verdict:not([hidden])", timeout=OF_A_MINUTE)


def until(page: Any, expression: str) -> None:
    """Wait for an expression to be true; the page's policy lets no text become code, which waiting in it needs."""
    for _ in range(OF_A_MINUTE // 50):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"{expression} did not become true: {page.inner_text('main')}")


def saved(page: Any, path: Path) -> dict[str, Any]:
    """The JSON that the page saves, as `hybridvit bench` reads it."""
    with page.expect_download() as download:
        page.click("#save")
    download.value.save_as(path)
    return read_result(path)


def test_fp32_and_int8_with_one_and_two_threads_give_a_result_that_the_command_reads(
    bench_pages: Callable[..., Path], open_page: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with static_host(bench_pages("small", "small-int8"), ISOLATED) as address:
        page = open_page(f"{address}?{QUICK}&threads=1,2&alive=3")
        finished(page)
        result = saved(page, tmp_path / "phone.json")
    assert set(result) == KEYS
    rows = {(row["model"], row["threads"]): row for row in result["bench"]}
    assert set(rows) == {(name, threads) for name in ("small", "small-int8") for threads in (1, 2)}
    for (model, _), row in rows.items():
        assert set(COLUMNS) <= set(row)
        assert 0 < row["low_ms"] <= row["median_ms"] <= row["high_ms"]
        assert (row["runtime"], row["device"], row["batch"]) == ("onnxruntime-web", "cpu", 1)
        assert row["precision"] == ("int8" if model == "small-int8" else "fp32")
        assert row["difference"] <= (0.05 if model == "small-int8" else 1e-4)
    # three Workers at a time: the first candidate is in both heats
    assert [row["processes"] for row in result["bench"]] == [2, 1, 1, 1]
    assert [len(turns) for turns in rows["small", 2]["turns_ms"]] == [8, 8]
    assert (result["complete"], result["skipped"]) == (True, [])
    assert result["machine"]["environment"]["isolated"]
    assert result["machine"]["versions"]["onnxruntime-web"] == "1.30.0"
    assert "fastest here" in page.inner_text("#verdict")
    file = str(tmp_path / "phone.json")
    assert main(["bench", "--from", file, "--against", file]) == 0
    said = capsys.readouterr().out
    assert "small, onnxruntime-web, fp32, batch 1, 32x32, cpu, threads 2" in said
    result["bench"][0] |= dict.fromkeys(("low_ms", "median_ms", "high_ms"), 2 * result["bench"][0]["high_ms"])
    (tmp_path / "slower.json").write_text(json.dumps(result), encoding="utf-8")
    assert main(["bench", "--from", str(tmp_path / "slower.json"), "--against", file]) == 9


def test_a_host_without_headers_gets_isolated_and_then_needs_no_network(
    bench_pages: Callable[..., Path], open_page: Callable
) -> None:
    with static_host(bench_pages("small")) as address:
        page = open_page(address)
        page.wait_for_selector("#start:enabled", timeout=OF_A_MINUTE)
        assert page.evaluate("crossOriginIsolated")
    for _ in range(2):
        page.reload()
        page.wait_for_selector("#start:enabled", timeout=OF_A_MINUTE)
        assert page.evaluate("crossOriginIsolated")
    page.goto(f"{address}?{QUICK}&threads=2")
    finished(page)
    assert "small (2 threads)" in page.inner_text("#verdict")


def test_a_service_has_the_page_beside_it(bench_pages: Callable[..., Path], open_page: Callable) -> None:
    model = f"mine={model_of(bench_pages('small'))}"
    words = [sys.executable, "-m", "hybridvit", "serve", model, "--bench", "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().removeprefix("Serving on ").strip()
            page = open_page(f"{address}/bench/?{QUICK}&threads=2")
            finished(page)
            assert "mine (2 threads)" in page.inner_text("#verdict")
            server.terminate()
            assert server.wait(60) == 0
        finally:
            server.kill()


def test_without_isolation_it_measures_with_one_thread_and_says_why(
    bench_pages: Callable[..., Path], open_page: Callable, tmp_path: Path
) -> None:
    with static_host(bench_pages("small")) as address:
        page = open_page(f"{address}?{QUICK}&threads=2", service_workers="block")
        finished(page)
        result = saved(page, tmp_path / "r.json")
    assert page.is_visible("#notice")
    assert "adb reverse" in page.text_content("#notice")
    assert [row["threads"] for row in result["bench"]] == [1]
    assert result["machine"]["environment"]["isolated"] is False
    assert "not cross-origin isolated" in result["conditions"]["warnings"][0]


def test_turns_of_a_hidden_page_are_thrown_away_and_what_there_is_outlives_the_tab(
    bench_pages: Callable[..., Path], open_page: Callable
) -> None:
    with static_host(bench_pages("small"), ISOLATED) as address:
        page = open_page(f"{address}?{QUICK.replace('=8', '=4000')}&threads=1")
        page.evaluate("""Object.defineProperty(document, "hidden", { get: () => globalThis.isAway === true })""")
        show = "(away) => { isAway = away; document.dispatchEvent(new Event('visibilitychange')); }"
        until(page, "/^round [2-9]/.test(doing.textContent)")
        page.evaluate(show, True)
        until(page, "/^paused/.test(doing.textContent)")
        kept = "() => JSON.parse(sessionStorage.getItem('hybridvit-bench-partial'))"
        before = page.evaluate(kept)["bench"][0]["calls"]
        page.wait_for_timeout(300)
        assert page.evaluate(kept)["bench"][0]["calls"] == before
        page.evaluate(show, False)
        until(page, f"({kept})().bench[0].calls > {before}")
        assert page.evaluate(kept)["conditions"]["interrupted"] == 1
        page.goto(address)  # as after the system ended the tab
        page.click("#show-partial")
        finished(page)
        assert "ended early" in page.inner_text("#verdict")


def test_an_answer_that_differs_is_not_timed_and_the_figure_is_told(
    bench_pages: Callable[..., Path], open_page: Callable, tmp_path: Path
) -> None:
    folder = tmp_path / "page"
    shutil.copytree(bench_pages("small"), folder)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    values = manifest["models"][0]["reference"][0]["values"]
    largest = max(map(abs, values))
    values[values.index(min(values, key=abs))] += 0.01 * largest
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with static_host(folder, ISOLATED) as address:
        page = open_page(f"{address}?{QUICK}&threads=1")
        finished(page)
        assert "Nothing could be measured" in page.inner_text("#verdict")
        said = page.inner_text("#remarks")
    assert "answers something else than ONNX Runtime: 1.0e-2 of the largest output, where 1.0e-4 is allowed" in said


def test_a_page_of_exported_files_is_written_without_torch(bench_pages: Callable[..., Path], tmp_path: Path) -> None:
    said = output_of("page_without_torch", tmp_path / "page", model_of(bench_pages("small")))
    assert json.loads(said) == []


def test_names_are_converted_and_counted_and_files_are_taken_as_they_are(
    bench_pages: Callable[..., Path], tmp_path: Path
) -> None:
    file = model_of(bench_pages("small"))
    assert main(["bench-page", str(tmp_path / "page"), "fastvit_debug", f"mine={file}", "--no_webgpu"]) == 0
    models = json.loads((tmp_path / "page" / "manifest.json").read_text(encoding="utf-8"))["models"]
    counts = counted(find_subject("fastvit_debug"), (32, 32))
    assert counts is not None
    names = ("model", "family", "parameters", "multiply_adds")
    assert [tuple(each["record"][name] for name in names) for each in models] == [
        ("fastvit_debug", "fastvit", counts.parameters, counts.multiply_adds),
        ("mine", "fastvit", None, None),
    ]
    assert (tmp_path / "page" / models[1]["file"]).read_bytes() == file.read_bytes()


def photo(folder: Path, file: Path) -> dict[str, np.ndarray]:
    """Write photo.png of noise to `folder`; what a file that takes the pixels of 32 x 32 px answers to it."""
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "photo.png")
    return open_runner(file, threads=1)(pixels[None].transpose(0, 3, 1, 2))


def test_the_page_in_the_docs_answers_as_the_file_does(
    bench_pages: Callable[..., Path], open_page: Callable, tmp_path: Path
) -> None:
    text = (DOCS / "browser.md").read_text(encoding="utf-8")
    (tmp_path / "index.html").write_text(text.split("```html\n")[1].split("```")[0], encoding="utf-8")
    shutil.copytree(bench_pages("small-uint8") / "ort", tmp_path / "ort")
    file = shutil.copyfile(model_of(bench_pages("small-uint8")), tmp_path / "model.onnx")
    logits = photo(tmp_path, file)["logits"]
    with static_host(tmp_path) as address:
        page = open_page(address)
        until(page, "answer.textContent !== ''")
        assert page.inner_text("#answer") == f"class {logits.argmax()}"


def test_the_program_for_browsers_in_the_docs_answers_as_the_file_does(
    bench_pages: Callable[..., Path], open_page: Callable, tmp_path: Path
) -> None:
    text = (DOCS / "deploy.md").read_text(encoding="utf-8").partition("### ONNX: a browser")[2]
    program = text.split("```js\n")[1].split("```")[0].replace("256", "32")  # the side of this model's images
    before = 'const file = await (await fetch("photo.png")).blob();'
    after = "window.found = [[...indices.data].map(Number), [...probabilities.data]];"
    (tmp_path / "index.html").write_text(
        f'<link rel="icon" href="data:,"><script type="module">{before}\n{program}\n{after}</script>', encoding="utf-8"
    )
    shutil.copytree(bench_pages("small") / "ort", tmp_path / "node_modules" / "onnxruntime-web" / "dist")
    answers = photo(tmp_path, exported("small-top5", tmp_path).rename(tmp_path / "model.onnx"))
    with static_host(tmp_path) as address:
        page = open_page(address)
        until(page, "'found' in window")
        indices, probabilities = page.evaluate("found")
    assert indices == answers["indices"].ravel().tolist()
    assert probabilities == pytest.approx(answers["probabilities"].ravel(), abs=1e-5)


def test_the_order_of_a_small_and_a_large_model_is_right(
    bench_pages: Callable[..., Path], open_page: Callable, tmp_path: Path
) -> None:
    with static_host(bench_pages("small", "fastvit_t8"), ISOLATED) as address:
        page = open_page(f"{address}?{QUICK}&threads=1")
        finished(page)
        result = saved(page, tmp_path / "r.json")
    times = {row["model"]: row["median_ms"] for row in result["bench"]}
    assert times["small"] < times["fastvit_t8"]
    assert max(row["difference"] for row in result["bench"]) <= 1e-4


@pytest.mark.nightly
def test_webgpu_answers_alike_and_int8_is_left_to_the_processor(
    bench_pages: Callable[..., Path], launch: Callable, tmp_path: Path
) -> None:
    with static_host(bench_pages("small", "small-int8"), ISOLATED) as address:
        browser = launch("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")
        page = browser.new_page()
        page.goto(f"{address}?{QUICK.replace('webgpu=0', 'webgpu=1')}&threads=1")
        finished(page)
        result = saved(page, tmp_path / "r.json")
        browser.close()
    found = {(row["model"], row["device"]): row["difference"] for row in result["bench"]}
    assert set(found) == {("small", "cpu"), ("small", "webgpu"), ("small-int8", "cpu")}
    assert found["small", "webgpu"] <= 1e-4
    assert [each["reason"] for each in result["skipped"]] == ["small-int8, WebGPU: int8 runs on the processor alone"]
    assert "swiftshader" in result["machine"]["gpu"].lower()


@pytest.mark.nightly
def test_the_models_of_the_papers_answer_alike_in_the_browser(
    bench_pages: Callable[..., Path], open_page: Callable, tmp_path: Path
) -> None:
    with static_host(bench_pages("fastvit_t8", "fastvit_sa12", "fastervit_0"), ISOLATED) as address:
        page = open_page(f"{address}?{QUICK}&threads=1")
        finished(page)
        result = saved(page, tmp_path / "r.json")
    assert len(result["bench"]) == 3
    assert max(row["difference"] for row in result["bench"]) <= 1e-4
