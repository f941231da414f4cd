"""Write the folder that a browser opens: the page, ONNX Runtime Web, the models, and what is known of them."""

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridvit.atomic import check_writable
from hybridvit.bench_page.entry import Asked, entry_of
from hybridvit.bench_page.ort_web import VERSION, builds, ort_web_files
from hybridvit.errors import UsageError, some
from hybridvit.loading import is_exported

FORMAT = 1
MANIFEST = "manifest.json"
STATIC = Path(__file__).parent / "static"


@dataclass(frozen=True, kw_only=True)
class BenchPage:
    """A folder that was written."""

    folder: Path
    models: tuple[str, ...]
    num_bytes: int


def write_page(
    folder: str | Path,
    models: Sequence[str | Path],
    *,
    ort: str | Path | None = None,
    webgpu: bool = True,
    trust_changed: bool = False,
    show: Callable[[str], None] = lambda _: None,
) -> BenchPage:
    """Write a folder of files that any web server serves, and that measures `models` in the browser that opens it.

    Args:
        folder: to write; one that is such a page already is replaced.
        models: exported `.onnx` files, each by the name of its file or as `name=file`; models by name and checkpoints
            are converted, in fp32.
        ort: folder of ONNX Runtime Web's files, or the archive of `npm pack`; by default npm fetches it once.
        webgpu: whether the builds for WebGPU (44 MB) are added to that for WebAssembly (14 MB).
        trust_changed: take exported files that were changed on purpose.
        show: told what is going on.

    Raises UsageError for a folder that holds something else, for models that a browser cannot run or that have the same
    name, and where ONNX Runtime Web cannot be had; CheckpointError for files that cannot be read.
    """
    target, paths = Path(folder), [str(each) for each in models]
    _check_target(target)
    if not paths:
        raise UsageError("There is nothing to measure. Name at least one .onnx file.")
    _check_files(paths)
    files = ort_web_files(None if ort is None else Path(ort), webgpu=webgpu)
    with tempfile.TemporaryDirectory(prefix="hybridvit-bench-page-") as temporary:
        asked = [_asked(each, Path(temporary), show) for each in paths]
        _check_names([each.name for each in asked])
        with _replacing_folder(target) as made:
            shutil.copytree(STATIC, made, dirs_exist_ok=True)
            (made / "ort").mkdir()
            for name, path in files.items():
                shutil.copyfile(path, made / "ort" / name)
            entries = [_copied(each, made / "models", trust_changed, show) for each in asked]
            _write_manifest(made, entries, webgpu=webgpu)
            num_bytes = sum(path.stat().st_size for path in made.rglob("*") if path.is_file())
    return BenchPage(folder=target, models=tuple(each.name for each in asked), num_bytes=num_bytes)


def _asked(model: str, folder: Path, show: Callable[[str], None]) -> Asked:
    """What one word asks for: `name=file`, a file by its own name, or what has to be converted first."""
    name, path = _parted(model)
    if path.endswith(".onnx"):
        return Asked(name=name or Path(path).stem, path=Path(path))
    from hybridvit.bench_page.named import converted

    found = converted(path, folder, show)
    return Asked(name=name or found.name, path=found.path, known=found.known)


def _parted(model: str) -> tuple[str, str]:
    """Name and path of `name=file`; the name is empty where none is given, or where a file is called so itself."""
    name, is_named, path = model.partition("=")
    return (name, path) if is_named and not Path(model).exists() else ("", model)


def _check_files(models: Sequence[str]) -> None:
    """Raise UsageError for a file that is not there, or is exported for a runtime that browsers do not have."""
    for path in (_parted(each)[1] for each in models):
        if is_exported(path) and not path.endswith(".onnx"):
            raise UsageError(
                f"{path} is no .onnx file, but the page runs these alone. Export for it: hybridvit export CHECKPOINT "
                "--to onnx --batch 1"
            )
        if path.endswith(".onnx") and not Path(path).is_file():
            raise UsageError(
                f"There is no file {path}. Check the path, or export one: hybridvit export CHECKPOINT --batch 1"
            )


def _check_names(names: Sequence[str]) -> None:
    if several := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise UsageError(f"Two models are called {some(several)}. Name one of them yourself: NAME=FILE.")


def _copied(asked: Asked, folder: Path, trust_changed: bool, show: Callable[[str], None]) -> dict[str, Any]:
    show(f"asking {asked.name}")
    entry = entry_of(asked, trust_changed=trust_changed)
    folder.mkdir(exist_ok=True)
    name = f"{re.sub(r'[^A-Za-z0-9._-]', '-', asked.name)}-{entry['sha256'][:12]}.onnx"  # what its content is for good
    shutil.copyfile(asked.path, folder / name)
    return {"file": f"models/{name}", **entry}


def _write_manifest(folder: Path, entries: Sequence[dict[str, Any]], *, webgpu: bool) -> None:
    sizes = {path.name: path.stat().st_size for path in (folder / "ort").iterdir()}
    runtime = {
        name: {"module": build.module, "files": {each: sizes[each] for each in build.files}}
        for name, build in builds(webgpu=webgpu).items()
    }
    page = sorted(path.name for path in STATIC.iterdir() if path.is_file())
    manifest = {
        "format": FORMAT, "onnxruntime_web": VERSION, "builds": runtime, "page": page, "models": list(entries),
    }  # fmt: skip
    text = json.dumps(manifest, ensure_ascii=False)
    (folder / MANIFEST).write_text(text, encoding="utf-8", newline="\n")


def _check_target(folder: Path) -> None:
    """Raise UsageError for a place that is no folder, or holds something else than an earlier page."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file, but the page is a folder of files. Name another.")
    if folder.exists() and any(folder.iterdir()) and not _is_page(folder):
        raise UsageError(f"{folder} holds other files, which would be lost. Name an empty folder or a new one.")
    check_writable(folder, is_folder=True)


def _is_page(folder: Path) -> bool:
    try:
        return "onnxruntime_web" in json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


@contextmanager
def _replacing_folder(target: Path) -> Iterator[Path]:
    """A new folder beside `target` that takes its place at the end, or is gone after an error."""
    made = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        made.chmod(0o755)  # served by whoever serves it
        yield made
        shutil.rmtree(target, ignore_errors=True)
        made.rename(target)
    finally:
        shutil.rmtree(made, ignore_errors=True)
