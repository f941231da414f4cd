"""The files of the page, from memory: what is not among them cannot be asked for."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from mimetypes import guess_type
from pathlib import PurePosixPath

from starlette.requests import Request
from starlette.responses import Response

POLICY = "default-src 'self'; img-src 'self' blob: data:; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:"
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
}
TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}  # whatever a system says


@dataclass(frozen=True, kw_only=True)
class File:
    """One file of a page."""

    content: bytes
    kind: str
    tag: str

    def response(self, request: Request) -> Response:
        """The file, or that the browser has it already."""
        headers = HEADERS | {"ETag": self.tag}
        if self.tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(self.content, media_type=self.kind, headers=headers)


def page_files() -> Mapping[str, File]:
    """By name."""
    folder = files("hybridvit.serve").joinpath("page")
    if not folder.is_dir():
        return {}
    return {each.name: file_of(each.name, each.read_bytes()) for each in folder.iterdir() if each.is_file()}


def file_of(name: str, content: bytes) -> File:
    """A file by its name and content."""
    kind = TYPES.get(PurePosixPath(name).suffix) or guess_type(name)[0] or "application/octet-stream"
    return File(content=content, kind=kind, tag=f'"{hashlib.sha256(content).hexdigest()[:32]}"')
