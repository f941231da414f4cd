"""The files of ONNX Runtime Web that the page runs: one version, each file known by its SHA-256."""

import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hybridvit.cache import cache_folder
from hybridvit.digest import sha256_of
from hybridvit.errors import UsageError

VERSION = "1.30.0"
PACKAGE = f"onnxruntime-web@{VERSION}"
ARCHIVE = f"onnxruntime-web-{VERSION}.tgz"  # what `npm pack` calls it
NPM_SECONDS = 300
HOW = f"Run `npm pack {PACKAGE}` where there is a network, and give the file that it writes: --ort {ARCHIVE}"
INSIDE = ("", "dist", "package/dist", "onnxruntime-web/dist", "node_modules/onnxruntime-web/dist")


@dataclass(frozen=True, kw_only=True)
class Build:
    """One way to run in a browser: its module, which is imported, and what that loads itself; file to SHA-256."""

    module: str
    files: dict[str, str]


# The old WebGPU build (ort.min.mjs, jsep) is not among them: it fills the memory of Safari 26.
WASM = Build(
    module="ort.wasm.min.mjs",
    files={
        "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
        "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
        "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    },
)
WEBGPU = {  # by how WebAssembly waits for the device: with promises where a browser can, else with code of its own
    "jspi": Build(
        module="ort.jspi.min.mjs",
        files={
            "ort.jspi.min.mjs": "bc57179d923fda2d88d4a395359c8df44399dde087bf9ff44fc0e40ab398e4d9",
            "ort-wasm-simd-threaded.jspi.mjs": "270e2c6da9f297239d301d329782b6446641cb1e16a77967690adcfca35f3268",
            "ort-wasm-simd-threaded.jspi.wasm": "a54c76f86b0f0d9572380cf1c6292a7b3903716ffcbcd6b0e5c7050bf430eb93",
        },
    ),
    "asyncify": Build(
        module="ort.webgpu.min.mjs",
        files={
            "ort.webgpu.min.mjs": "3dffff71811bc13a3a3d9591c57ca5ee5735b8f5f3eaf789510b02bb040ae3a0",
            "ort-wasm-simd-threaded.asyncify.mjs": "3d1c85995364bb643302fc6fd877a0c3ba5ae72401815e0f24828a53d9191e28",
            "ort-wasm-simd-threaded.asyncify.wasm": "39f9f0894d478800487ed9f7dbe92618498db320cf55c8e3d89adff8dce658da",
        },
    ),
}


def builds(*, webgpu: bool) -> dict[str, Build]:
    """The builds that a page with or without WebGPU takes, by name."""
    return {"wasm": WASM} | (WEBGPU if webgpu else {})


def ort_web_files(given: Path | None = None, *, webgpu: bool = True) -> dict[str, Path]:
    """The files of the builds by name, each with the content that is known here.

    `given` is a folder that holds them, or the archive that `npm pack` writes; by default they are in the cache folder,
    where npm puts them once. Raises UsageError where they cannot be had, or are not those of VERSION.
    """
    wanted = {name: digest for build in builds(webgpu=webgpu).values() for name, digest in build.files.items()}
    if given is not None and not given.exists():
        raise UsageError(f"There is no {given} with ONNX Runtime Web. {HOW}.")
    folder = given if given is not None and given.is_dir() else _cached(given, wanted)
    files = {name: found for name in wanted if (found := _found(folder, name)) is not None}
    if lacking := [name for name in wanted if name not in files]:
        raise UsageError(f"{folder} has no {', '.join(lacking)}, which the page needs. {HOW}.")
    if other := [name for name, path in files.items() if sha256_of(path) != wanted[name]]:
        raise UsageError(f"{folder / other[0]} is not that of {PACKAGE}: its SHA-256 is another. {HOW}.")
    return files


def _found(folder: Path, name: str) -> Path | None:
    return next((path for each in INSIDE if (path := folder / each / name).is_file()), None)


def _cached(archive: Path | None, wanted: dict[str, str]) -> Path:
    """The folder in the cache with all files, unpacked from `archive`, or from what npm fetches, if need be."""
    folder = cache_folder() / f"onnxruntime-web-{VERSION}"
    if all((folder / name).is_file() and sha256_of(folder / name) == digest for name, digest in wanted.items()):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="onnxruntime-web-") as temporary:
        unpacked = Path(temporary, "files")
        _unpack(archive or _fetched(Path(temporary)), unpacked)
        shutil.rmtree(folder, ignore_errors=True)
        unpacked.rename(folder)
    return folder


def _fetched(folder: Path) -> Path:
    """The archive that npm fetched into `folder`."""
    npm = shutil.which("npm")
    if npm is None:
        raise UsageError(f"ONNX Runtime Web {VERSION} is not here yet, and there is no npm to fetch it with. {HOW}.")
    words = [npm, "pack", PACKAGE, "--silent", "--ignore-scripts", "--pack-destination", str(folder)]
    try:
        done = subprocess.run(
            words, cwd=folder, capture_output=True, text=True, encoding="utf-8", errors="replace", timeout=NPM_SECONDS
        )
        said = done.stderr.strip().split("\n")[0]
    except subprocess.TimeoutExpired:
        said = f"no answer in {NPM_SECONDS} s"
    archive = folder / ARCHIVE
    if not archive.is_file():
        raise UsageError(f"npm could not fetch {PACKAGE} ({said or 'it did not say why'}). {HOW}.")
    return archive


def _unpack(archive: Path, folder: Path) -> None:
    """The files of all builds, and no others, straight into `folder`."""
    folder.mkdir()
    names = {name for build in builds(webgpu=True).values() for name in build.files}
    try:
        with tarfile.open(archive, "r:gz") as packed:
            for member in packed:
                name = member.name.removeprefix("package/dist/")
                content = packed.extractfile(member) if name in names and member.isfile() else None
                if content is not None:
                    with content, (folder / name).open("wb") as file:
                        shutil.copyfileobj(content, file)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UsageError(f"{archive} is no archive of {PACKAGE} ({error}). {HOW}.") from error
