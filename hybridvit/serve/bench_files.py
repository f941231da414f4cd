"""The page that measures in the browser, beside a service, with the headers that give it threads."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from hybridvit.bench_page import write_page
from hybridvit.serve.pages import HEADERS, TYPES

PATH = "/bench"


class BenchFiles(StaticFiles):
    """The files of a folder that `write_page` wrote."""

    def __init__(self, folder: Path) -> None:
        super().__init__(directory=folder, html=True)

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """The file, or that the browser has it already, isolated from other pages."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(HEADERS)
        if kind := TYPES.get(PurePath(full_path).suffix):
            response.headers["Content-Type"] = kind
        return response


@contextmanager
def bench_folder(models: Sequence[str], *, trust_changed: bool) -> Iterator[Path]:
    """The page of these models in a folder that is gone afterwards. Raises as `write_page`."""
    with tempfile.TemporaryDirectory(prefix="hybridvit-bench-") as temporary:
        yield write_page(Path(temporary, "page"), models, trust_changed=trust_changed).folder
