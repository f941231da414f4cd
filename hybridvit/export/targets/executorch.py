"""ExecuTorch: one .pte file for phones and boards, computed by XNNPACK, in fp32 or int8.

fp16 is not written: executorch 1.5 stores the weights of convolutions in fp32 all the same, so that the file is hardly
smaller (16.0 to 14.5 MB), and on x86 it takes more than twice as long; its gain on ARM could not be measured.

What the file is for stands inside it: its method "hybridvit" returns the metadata as JSON, in Kotlin and Swift too.
The text is as long from the start as it may become, so that entries can be replaced where they stand; it is read from
the bytes, and its digest checked, before the runtime sees the file: of 100 files with flipped bits it ran 51,
and 23 answered wrongly.
"""

import functools
import json
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hybridvit.errors import CheckpointError, ExportError, UsageError, first_line
from hybridvit.export.bundle import card_metadata
from hybridvit.export.exporter import LIMITS, Exporter, Quantisation
from hybridvit.export.quiet import quiet, quiet_native
from hybridvit.export.runners import ExportedRunner, read_file
from hybridvit.export.seal import NOTHING_ELSE, Trust

if TYPE_CHECKING:
    from executorch.runtime import Runtime

    from hybridvit.export.graph import DeployedModel

OPENING = '{"hybridvit.pte": "1"'  # how the metadata begin
ROOM_BYTES = 2**14  # for metadata besides the card


class ExecuTorchRunner(ExportedRunner):
    """An exported file in ExecuTorch's runtime. One call runs at a time; the threads are those of the process."""

    runtime = "executorch"

    def __init__(self, path: Path, threads: int | None = None, trust: Trust = NOTHING_ELSE) -> None:
        content = read_file(path)
        self.describe(path, _read_metadata(content, path), content, trust=trust)
        runtime = _runtime()
        _set_threads(threads)
        try:
            program = runtime.load_program(content)
            self._forward = program.load_method("forward")
        except RuntimeError as error:
            raise CheckpointError(
                f"{path} does not open in this version of ExecuTorch ({first_line(error)}). If another version "
                "wrote it, export it again here: `hybridvit export CHECKPOINT --to executorch`."
            ) from error
        self._program = program  # owns the weights
        # of a dynamic batch too: executorch 1.5 sets memory aside for 15 images where 64 are asked for
        self._largest_batch = program.metadata("forward").input_tensor_meta(0).sizes()[0]
        self._lock = threading.Lock()
        _open_runners.add(self)

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """The outputs of a checked batch."""
        import torch

        parts = torch.from_numpy(images).split(self._largest_batch)
        with self._lock:
            outputs = [self._forward.execute((part,)) for part in parts]
        return [np.concatenate([each.numpy() for each in same]) for same in zip(*outputs, strict=True)]


class ExecuTorchExporter(Exporter):
    """Through torch.export and XNNPACK's partitioner."""

    target = "executorch"
    title = "ExecuTorch"
    runtime = "executorch"
    suffix = ".pte"
    runner = ExecuTorchRunner
    writer_packages = ("executorch", "torchao")
    runner_packages = ("executorch",)
    extra = "executorch"
    rewrites = (
        "hybridvit.models.fastvit.rewrites:doubling_as_depthwise",
        "hybridvit.export.rewrites:depthwise_in_parts",
    )
    precisions = ("fp32", "int8")
    limits = LIMITS | {"fp32": 1e-4}
    takes_dynamic_size = False  # executorch 1.5 cannot lower a graph whose sides are open: an assertion in its passes
    default_batch = 1

    def convert(self, model: "DeployedModel", path: Path, quantisation: Quantisation | None = None) -> None:
        """Write one file; the images go in and the answers come out as with every other target."""
        from hybridvit.export.targets.xnnpack import lowered, xnnpack_graph
        from hybridvit.export.targets.xnnpack_int8 import quantised_graph

        room = " " * (ROOM_BYTES + len(json.dumps(card_metadata(model.backbone.card))))
        try:
            graph = xnnpack_graph(model) if quantisation is None else quantised_graph(model, quantisation)
            with quiet():
                content = lowered(graph, model, OPENING + "}" + room).to_executorch().buffer
        except UsageError:
            raise
        except Exception as error:  # their converters raise whatever they met
            raise ExportError(
                f"executorch cannot convert this model ({first_line(error)}). Another version of executorch or torch "
                "may do it."
            ) from error
        path.write_bytes(content)

    def annotate(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Write the metadata over those in the file."""
        content = path.read_bytes()
        start, room = _place(content, path)
        text = (OPENING + ", " + json.dumps(dict(metadata))[1:]).encode()
        if len(text) > room:
            raise ExportError(
                f"The metadata take {len(text)} bytes, but {path} has room for {room}. Shorten the class names."
            )
        path.write_bytes(content[:start] + text.ljust(room) + content[start + room :])


_open_runners: "weakref.WeakSet[ExecuTorchRunner]" = weakref.WeakSet()


def _set_threads(threads: int | None) -> None:
    """The runtime has one pool of threads, which a loaded program keeps: a new one would leave it with a dead pool."""
    from executorch.extension.pybindings import portable_lib

    if threads is None or threads == portable_lib._threadpool_get_thread_count():
        return
    if len(_open_runners):
        raise UsageError(
            f"threads is {threads}, but another .pte file is open in this process, and ExecuTorch has one pool of "
            f"{portable_lib._threadpool_get_thread_count()} threads for all. Open the first file with that number, or "
            "run this one in a process of its own."
        )
    with quiet_native():  # it tells so
        portable_lib._unsafe_reset_threadpool(threads)


@functools.cache
def _runtime() -> "Runtime":
    """The runtime of this process. Its threads start here, whose count of cores writes five lines to descriptor 2."""
    with quiet(), quiet_native():
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime

        portable_lib._threadpool_get_thread_count()
        return Runtime.get()


def _read_metadata(content: bytes, path: Path) -> dict[str, str]:
    start, room = _place(content, path)
    try:
        metadata = json.loads(content[start : start + room])
        assert isinstance(metadata, dict)
    except ValueError as error:
        raise CheckpointError(
            f"{path} is damaged: its metadata cannot be read ({first_line(error)}). Copy it anew, or export it again."
        ) from error
    return {key: str(value) for key, value in metadata.items()}


def _place(content: bytes, path: Path) -> tuple[int, int]:
    """Where the metadata begin, and their length, which the format puts before a text."""
    start = content.find(OPENING.encode())
    room = int.from_bytes(content[max(0, start - 4) : max(0, start)], "little")
    if content[4:6] != b"ET" or start < 4 or content.count(OPENING.encode()) != 1 or start + room > len(content):
        raise CheckpointError(
            f"{path} is not a .pte file that hybridvit wrote: it is damaged, incomplete or something else. Export it "
            "again with `hybridvit export CHECKPOINT --to executorch`."
        )
    return start, room
