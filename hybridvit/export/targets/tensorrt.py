"""TensorRT: an engine for NVIDIA GPUs, built from the ONNX graph on the GPU that is to run it.

An engine fits one version of TensorRT and one kind of GPU. The network is strongly typed: its precision is that of the
ONNX graph, the only way since TensorRT 11. No bf16, for the ONNX graph has none.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hybridvit.errors import CheckpointError, ExportError, UsageError
from hybridvit.export.exporter import Exporter, Quantisation
from hybridvit.export.runners import ExportedRunner
from hybridvit.export.seal import KEY, NOTHING_ELSE, Trust, as_written
from hybridvit.export.spec import INPUT, GraphSpec, Precision

if TYPE_CHECKING:
    from hybridvit.export.graph import DeployedModel

GPU_LIMITS: dict[Precision, float] = {"fp32": 1e-4, "fp16": 5e-3}
"""Sums are ordered otherwise than on the CPU that is compared with; TF32 is off."""
TUNED_BATCH, LARGEST_BATCH = 8, 64  # of an engine for any batch: the one its kernels are chosen for, and the limit

Shape = tuple[int, int, int, int]


DTYPES = {"INT32": "int32", "UINT8": "uint8"}  # of outputs; the others are float32


class TensorRTRunner(ExportedRunner):
    """An engine on the current GPU."""

    runtime = "tensorrt"

    def __init__(self, path: Path, threads: int | None = None, trust: Trust = NOTHING_ELSE) -> None:
        import tensorrt
        import torch

        metadata = _metadata(path)
        self.describe(path, metadata, trust=trust)
        content = path.read_bytes()
        with as_written(path, trust):
            if metadata.get(KEY) != hashlib.sha256(content).hexdigest():
                raise CheckpointError(
                    f"{path} is not the engine that {path.name}.json was written with: it is damaged or of another "
                    "export. Copy both files together, or export again."
                )
        self._runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine(content)
        if self._engine is None:
            raise CheckpointError(
                f"{path} cannot be opened by TensorRT {tensorrt.__version__} on this GPU: an engine fits the version "
                "and the kind of GPU that it was built with. Export it again here."
            )
        self._context = self._engine.create_execution_context()
        self._stream = torch.cuda.Stream()

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """The outputs of a checked batch, in parts if it is larger than the engine takes."""
        parts = [self._run(images[start : start + LARGEST_BATCH]) for start in range(0, len(images), LARGEST_BATCH)]
        return [np.concatenate(each) for each in zip(*parts, strict=True)]

    def _run(self, images: np.ndarray) -> list[np.ndarray]:
        import torch

        context = self._context
        with torch.cuda.stream(self._stream):
            tensors = {INPUT: torch.from_numpy(images).cuda()}
            context.set_input_shape(INPUT, tuple(images.shape))
            for name in self.spec.outputs:
                dtype = getattr(torch, DTYPES.get(self._engine.get_tensor_dtype(name).name, "float32"))
                tensors[name] = torch.empty(tuple(context.get_tensor_shape(name)), dtype=dtype, device="cuda")
            for name, tensor in tensors.items():
                context.set_tensor_address(name, tensor.data_ptr())
            if not context.execute_async_v3(self._stream.cuda_stream):
                raise RuntimeError(f"TensorRT could not run {self.path} on a batch of {images.shape}.")
        self._stream.synchronize()
        return [tensors[name].cpu().numpy() for name in self.spec.outputs]


class TensorRTExporter(Exporter):
    """Through ONNX."""

    target = "tensorrt"
    title = "TensorRT"
    runtime = "tensorrt"
    device, takes_threads = "cuda", False
    suffix = ".engine"
    runner = TensorRTRunner
    writer_packages = ("onnx", "onnxscript")  # tensorrt and the GPU are asked for in `convert`, which knows the way out
    runner_packages = ("tensorrt",)
    extra = "tensorrt"
    takes_lists = True
    precisions = ("fp32", "fp16")
    limits = GPU_LIMITS

    def companions(self, path: Path) -> Sequence[Path]:
        """The metadata, for which an engine has no place."""
        return (path.with_name(f"{path.name}.json"),)

    def convert(self, model: "DeployedModel", path: Path, quantisation: Quantisation | None = None) -> None:
        """Build the engine for this GPU. Raises UsageError, with the way over ONNX, where there is none."""
        spec = model.spec
        if missing := _missing():
            raise UsageError(
                f"A TensorRT engine is built on the GPU that is to run it, but {missing}. Export there, or build it "
                f"there from ONNX: `{onnx_command(spec)}`, then "
                f"`{trtexec_command(model.backbone.card.architecture, spec)}`."
            )
        import torch

        from hybridvit.export.targets.onnx_graph import onnx_graph

        graph = onnx_graph(model.in_dtype(torch.float16) if spec.precision == "fp16" else model)
        path.write_bytes(_engine(graph.SerializeToString(), spec))

    def annotate(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Write `metadata` beside the engine."""
        self.companions(path)[0].write_text(json.dumps(dict(metadata), ensure_ascii=False, indent=1), encoding="utf-8")

    def seal(self, path: Path) -> None:
        """The digest of the engine, which ties the two files together."""
        self.annotate(path, _metadata(path) | {KEY: hashlib.sha256(path.read_bytes()).hexdigest()})

    def load_runner(self, path: Path, *, threads: int | None = None, trust: Trust = NOTHING_ELSE) -> ExportedRunner:
        """Open `path` and the .json beside it."""
        if missing := _missing():
            raise UsageError(f"{path} cannot run here: {missing}.")
        return super().load_runner(path, threads=threads, trust=trust)


def onnx_command(spec: GraphSpec) -> str:
    """The export to ONNX of the same graph."""
    words = ["hybridvit export CHECKPOINT --to onnx", f"--precision {spec.precision}"]
    words += [f"--batch {spec.batch}"] if spec.batch is not None else []
    words += ["--dynamic_size"] if spec.range_px else [f"--image_size {spec.image_size[0]}x{spec.image_size[1]}"]
    words += ["--uint8"] if spec.pixels == "uint8" else []
    words += [f"--returns {spec.returns}"] if not spec.gives_answers else []
    words += ["--argmax"] if spec.argmax else []
    words += [f"--top_k {spec.top_k}"] if spec.top_k is not None else []
    return " ".join(words)


def trtexec_command(name: str, spec: GraphSpec) -> str:
    """What NVIDIA's own tool is to be told; the same as `convert` does."""
    words = [f"trtexec --onnx={name}.onnx --saveEngine={name}.engine --stronglyTyped --noTF32"]
    if spec.batch is None or spec.range_px is not None:
        flags = zip(("min", "opt", "max"), shapes(spec), strict=True)
        words += [f"--{flag}Shapes={INPUT}:{'x'.join(map(str, shape))}" for flag, shape in flags]
    return " ".join(words)


def shapes(spec: GraphSpec) -> tuple[Shape, Shape, Shape]:
    """The smallest input, the one that kernels are chosen for, and the largest."""
    batches = (1, TUNED_BATCH, LARGEST_BATCH) if spec.batch is None else (spec.batch,) * 3
    sizes = (spec.image_size,) * 3
    if spec.range_px is not None:
        smallest, largest = spec.range_px
        height, width = (min(max(side, smallest), largest) for side in spec.image_size)
        sizes = ((smallest, smallest), (height, width), (largest, largest))
    lower, tuned, upper = (spec.shape(batch, size) for batch, size in zip(batches, sizes, strict=True))
    return lower, tuned, upper


def _engine(graph: bytes, spec: GraphSpec) -> bytes:
    import tensorrt

    builder = tensorrt.Builder(tensorrt.Logger(tensorrt.Logger.ERROR))
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt.OnnxParser(network, tensorrt.Logger(tensorrt.Logger.ERROR))
    if not parser.parse(graph):
        said = parser.get_error(0).desc() if parser.num_errors else "no reason given"
        raise ExportError(f"TensorRT {tensorrt.__version__} cannot read the ONNX graph ({said}). Another version may.")
    config = builder.create_builder_config()
    config.clear_flag(tensorrt.BuilderFlag.TF32)  # on by default: it cuts fp32 to 10 bits of mantissa
    profile = builder.create_optimization_profile()
    profile.set_shape(INPUT, *shapes(spec))
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ExportError(
            f"TensorRT {tensorrt.__version__} could not build an engine for this GPU. Another version may, or a "
            "smaller batch."
        )
    return bytes(engine)


def _missing() -> str:
    """What this machine lacks to build or run an engine; "" if nothing."""
    if find_spec("tensorrt") is None:
        return 'tensorrt is missing here (pip install "hybridvit[tensorrt]")'
    import torch

    return "" if torch.cuda.is_available() else "no NVIDIA GPU can be used here"


def _metadata(path: Path) -> dict[str, Any]:
    file = path.with_name(f"{path.name}.json")
    if not file.is_file() or not path.is_file():
        raise CheckpointError(
            f"There is no {path if file.is_file() else file}. A TensorRT engine of ours is two files, {path.name} and "
            f"{file.name}, side by side: copy both, or export one with `hybridvit export CHECKPOINT --to tensorrt`."
        )
    try:
        return {str(key): str(value) for key, value in json.loads(file.read_text(encoding="utf-8")).items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{file} is damaged ({error}). Export the engine again.") from error
