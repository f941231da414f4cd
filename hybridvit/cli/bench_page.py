"""`hybridvit bench-page`: which model is fastest on the phone in your hand?"""

from pathlib import Path

from hybridvit.cli.progress import status_line
from hybridvit.errors import command_line, plural


def bench_page(
    output: Path,
    models: list[str],
    *,
    ort: Path | None = None,
    no_webgpu: bool = False,
    trust_changed: bool = False,
) -> None:
    """Write a page that times models in the browser that opens it, on a phone too.

    The folder holds ONNX Runtime Web, the models, and what ONNX Runtime answers here for an input that the page makes
    again: a browser that answers something else is not timed. Candidates (a model with some threads, or on WebGPU) take
    turns in rounds, as those of `hybridvit bench` do, and the page draws accuracy against latency and gives the same
    JSON, which `hybridvit bench --from` reads. Nothing is sent anywhere, and once it was opened it needs no network.

    Any web server serves it. Threads and WebGPU need https or localhost: docs/browser.md shows the ways.

    Examples:
      hybridvit bench-page page fastvit_t8 fastvit_sa12 fastervit_0
      hybridvit bench-page page model.onnx small=model-int8.onnx
      hybridvit bench-page page model.onnx --no_webgpu --ort onnxruntime-web-1.30.0.tgz

    Args:
        output: folder to write; an earlier page there is replaced.
        models: .onnx files for one image (of `hybridvit export --batch 1`, or with a free batch), each as FILE or \
NAME=FILE; names of `hybridvit list` and of timm, and checkpoints, are converted first.
        ort: folder with ONNX Runtime Web 1.30.0, or the archive of `npm pack`; by default npm fetches it once.
        no_webgpu: leave out the builds for WebGPU, 44 of 58 MB.
        trust_changed: take exported files that were changed on purpose (simplified, converted to fp16).
    """
    from hybridvit.bench_page import write_page

    with status_line() as show:
        page = write_page(output, models, ort=ort, webgpu=not no_webgpu, trust_changed=trust_changed, show=show)
    print(f"Wrote {page.folder}: {plural(len(page.models), 'model')}, {page.num_bytes / 1e6:.0f} MB.")
    print(f"Look at it here: {command_line('python', '-m', 'http.server', '8000', '-d', page.folder)}")
    print("then open http://localhost:8000; on a phone: docs/browser.md.")
