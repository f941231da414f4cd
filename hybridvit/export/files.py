"""Put what an exporter writes in place: one file, or several that belong together."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from hybridvit.atomic import replacing


@contextmanager
def replacing_with(path: Path, companions: tuple[str, ...]) -> Iterator[Path]:
    """`hybridvit.atomic.replacing` for a file and its companions, which have its name and other suffixes.

    The exporter writes them all beside the temporary path. They take their places one after the other, `path` the last;
    a power cut between them leaves files that do not belong together, which the exporter's runner has to notice.
    """
    with replacing(path) as temporary, ExitStack() as stack:
        written = [temporary.with_suffix(suffix) for suffix in companions]
        places = [stack.enter_context(replacing(path.with_suffix(suffix))) for suffix in companions]
        try:
            yield temporary
            for source, place in zip(written, places, strict=True):
                os.replace(source, place)
        finally:
            for source in written:
                source.unlink(missing_ok=True)
