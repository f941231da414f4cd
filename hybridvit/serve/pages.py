"""The files of the pages that a service shows: its own, and that which measures in the browser."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

PAGE = Path(__file__).parent / "page"
BENCH = "/bench"  # where the page that measures is
POLICY = "default-src 'self'; img-src 'self' blob: data:; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:"
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
}
TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}  # whatever a system says


class PageFiles(StaticFiles):
    """The files of a folder, isolated from other pages, which gives them threads."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """The file, or that the browser has it already."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(HEADERS)
        if kind := TYPES.get(PurePath(full_path).suffix):
            response.headers["Content-Type"] = kind
        return response


@contextmanager
def bench_folder(models: Sequence[str], *, trust_changed: bool) -> Iterator[Path]:
    """The page that measures these models, in a folder that is gone afterwards. Raises as `write_page`."""
    from hybridvit.bench_page import write_page

    with tempfile.TemporaryDirectory(prefix="hybridvit-bench-") as temporary:
        yield write_page(Path(temporary, "page"), models, trust_changed=trust_changed).folder
