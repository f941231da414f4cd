"""Apple's Core AI: an .aimodel for macOS 27 and iOS 27, which Apple's own runtime on the CPU runs on Linux, too."""

import json
import platform
import weakref
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hybridvit.errors import CheckpointError, ExportError
from hybridvit.export.exporter import Exporter, Quantisation
from hybridvit.export.quiet import quiet
from hybridvit.export.runners import ExportedRunner
from hybridvit.export.seal import NOTHING_ELSE, Trust
from hybridvit.export.spec import INPUT

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from torch import Tensor

    from hybridvit.export.graph import DeployedModel

METADATA_FILE, OURS = "metadata.json", "creatorDefinedMetadata"


class CoreAIRunner(ExportedRunner):
    """A folder in Core AI: the system's on macOS 27, else the one of the Python package, which computes on the CPU.

    Core AI's calls are coroutines; a thread of its own waits for them, so that a runner works in a notebook as well.
    """

    runtime = "coreai"

    def __init__(self, path: Path, threads: int | None = None, trust: Trust = NOTHING_ELSE) -> None:
        self.describe(path, _metadata(path), trust=trust)
        import asyncio

        from coreai.authoring.asset import AIModelAsset

        self._loop, self._thread = asyncio.new_event_loop(), ThreadPoolExecutor(max_workers=1)
        executable = AIModelAsset.load(path).executable()
        model = self._wait(executable.__aenter__())
        self._function = model.load_function("main")
        weakref.finalize(self, _close, self._loop, self._thread, executable)

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """The outputs of a checked batch."""
        from coreai.runtime import NDArray

        outputs = self._wait(self._function({INPUT: NDArray(images)}))
        return [np.array(outputs[name].numpy()) for name in self.spec.outputs]

    def _wait(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self._thread.submit(self._loop.run_until_complete, coroutine).result()


class CoreAIExporter(Exporter):
    """Through torch.export. Half precision is that of the graph; its ends stay as they are."""

    target = "coreai"
    title = "Core AI"
    suffix = ".aimodel"
    takes_threads = False
    record = METADATA_FILE
    runner = CoreAIRunner
    writer_packages = ("coreai_torch", "coreai")
    runner_packages = ("coreai",)
    extra = "coreai"
    precisions = ("fp32", "fp16", "bf16")
    takes_dynamic_size = False
    default_batch = 1

    def convert(self, model: "DeployedModel", path: Path, quantisation: Quantisation | None = None) -> None:
        """Write the folder."""
        import torch

        from hybridvit.export.program import exported_program

        with quiet():  # it warns of torch versions that it was not tested with: every file is compared
            import coreai_torch

            dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[model.spec.precision]
            # pooling by itself comes out as a view with strides, which Core AI lacks
            table = dict(coreai_torch.get_decomp_table().items()) | {torch.ops.aten.adaptive_avg_pool2d.default: _mean}
            program = exported_program(model.in_dtype(dtype), table)
            try:
                coreai_torch.TorchConverter().add_exported_program(
                    program, input_names=[INPUT], output_names=list(model.spec.outputs)
                ).to_coreai().save_asset(path)
            except (ValueError, RuntimeError, NotImplementedError, TypeError) as error:
                raise ExportError(
                    f"coreai-torch {coreai_torch.__version__} cannot convert this model ({error}) with torch "
                    f"{torch.__version__}. Another version of either may."
                ) from error

    def annotate(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Put `metadata` into the folder's own, with author, licence and description."""
        from coreai.authoring.asset import AIModelAsset

        card = json.loads(metadata["hybridvit.card"])

        def update(known: Any) -> None:
            known.author, known.license, known.model_description = card["source"], card["licence"], card["architecture"]
            for key, value in metadata.items():
                known.set_custom(key, value)

        AIModelAsset.load(path).update_metadata(update)

    def why_not_here(self) -> str:
        """Its runtime is made for macOS and Linux."""
        system = platform.system()
        return "" if system in ("Darwin", "Linux") else f"Core AI's runtime is not made for {system}"


def _close(loop: "AbstractEventLoop", thread: ThreadPoolExecutor, executable: Any) -> None:
    """Release a model and the temporary folder it was compiled to."""
    thread.submit(loop.run_until_complete, executable.__aexit__(None, None, None)).result()
    thread.shutdown()
    loop.close()


def _mean(x: "Tensor", size: object) -> "Tensor":
    """Average pooling to one pixel, the only one in our models."""
    return x.mean((-2, -1), keepdim=True)


def _metadata(path: Path) -> dict[str, str]:
    file = path / METADATA_FILE
    if not file.is_file():
        raise CheckpointError(
            f"There is no {file}. A Core AI model is a folder: copy all of it, or export one with `hybridvit export "
            "CHECKPOINT --to coreai`."
        )
    try:
        return {str(key): str(value) for key, value in json.loads(file.read_text(encoding="utf-8"))[OURS].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} holds no metadata of hybridvit that can be read ({type(error).__name__}): it is damaged, or was "
            "written by something else. Export it again."
        ) from error
