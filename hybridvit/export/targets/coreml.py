"""Core ML: an .mlpackage for iPhone, iPad and Mac, of fixed shapes, so that the Neural Engine takes it.

Files of this target run on macOS alone. Elsewhere the written package is read back, its weights are compared one by one
and its program is computed operation by operation (`coreml_program`); a script beside it does the rest on a Mac.
"""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hybridvit.errors import CheckpointError, ExportError, UsageError, command_line, first_line
from hybridvit.export.exporter import Exporter, Quantisation, WeightCheck
from hybridvit.export.quiet import quiet
from hybridvit.export.runners import ExportedRunner
from hybridvit.export.seal import NOTHING_ELSE, Trust
from hybridvit.export.spec import INPUT, GraphSpec, Precision

if TYPE_CHECKING:
    from hybridvit.export.graph import DeployedModel

SPEC_FILE = "Data/com.apple.CoreML/model.mlmodel"  # inside the package: its graph and metadata, a protobuf
MAC_LIMITS: dict[Precision, float] = {"fp32": 1e-3, "fp16": 1e-2}
"""On a Mac, whose GPU and Neural Engine order sums as they like; the program that is written keeps LIMITS."""
INT8_LIMIT = 1.0  # for the script: int8 is judged by its accuracy, here only an answer that is none fails
NOT_HERE = "Core ML is part of macOS"


class CoreMLRunner(ExportedRunner):
    """A package in Core ML, on a Mac."""

    runtime = "coreml"

    def __init__(self, path: Path, threads: int | None = None, trust: Trust = NOTHING_ELSE) -> None:
        self.describe(path, _read_spec(path).description.metadata.userDefined, trust=trust)
        with quiet():
            import coremltools as ct

            self.model = ct.models.MLModel(str(path), compute_units=ct.ComputeUnit.ALL)

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """The outputs of a checked batch."""
        given: object = images
        if self.spec.pixels == "uint8":
            from PIL import Image

            given = Image.fromarray(images[0, ..., 0] if self.spec.channels == 1 else images[0])
        answers = self.model.predict({INPUT: given})
        return [np.asarray(answers[name]) for name in self.spec.outputs]


class ProgramRunner(ExportedRunner):
    """The program inside a package, read back from disk and computed in PyTorch: see `coreml_program`."""

    runtime = "coreml, computed from its program"

    def __init__(self, path: Path, threads: int | None = None, trust: Trust = NOTHING_ELSE) -> None:
        from hybridvit.export.targets.coreml_program import load_program

        self.describe(path, _read_spec(path).description.metadata.userDefined, trust=trust)
        with quiet():
            self.program = load_program(path)

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """The outputs of a checked batch. Raises ExportError for an operation that `coreml_program` does not know."""
        import torch

        from hybridvit.export.targets.coreml_program import evaluate

        planar = images.transpose(0, 3, 1, 2) if self.spec.pixels == "uint8" else images  # b c h w
        try:
            answers = evaluate(self.program, torch.from_numpy(np.ascontiguousarray(planar, np.float32)))
        except (NotImplementedError, ValueError) as error:
            raise ExportError(
                f"The Core ML package that was written cannot be computed here ({error}), so it is not proven. It was "
                "not kept. Another version of coremltools may write other operations."
            ) from error
        return [answers[name].numpy() for name in self.spec.outputs]


class CoreMLExporter(Exporter):
    """Through torch.export: tracing bakes attention's sizes in. int8 is of the weights; the rest computes in fp16."""

    target = "coreml"
    title = "Core ML"
    suffix = ".mlpackage"
    takes_threads = False
    record = SPEC_FILE
    runner = CoreMLRunner
    writer_packages = ("coremltools",)
    runner_packages = ("coremltools", "PIL")
    extra = "coreml"
    rewrites = ("hybridvit.export.targets.coreml_channels_first:channels_first",)
    precisions = ("fp32", "fp16", "int8")
    takes_dynamic_batch = False  # flexible shapes leave the Neural Engine, and are many times slower
    takes_dynamic_size = False
    takes_several_sizes = True
    default_batch = 1

    def companions(self, path: Path) -> Sequence[Path]:
        """The script that verifies the package on a Mac, and what it compares with."""
        return (path.with_suffix(".verify_on_mac.py"), path.with_suffix(".verify_on_mac.npz"))

    def convert(self, model: "DeployedModel", path: Path, quantisation: Quantisation | None = None) -> None:
        """Write the package for iOS 17, macOS 14 and later, with its verification beside it."""
        from hybridvit.export.targets.coreml_model import write_answers

        spec = model.spec
        _check(model, spec)
        with quiet():
            package = _converted(model, spec)
            if spec.precision == "int8":
                package = _with_int8_weights(package, () if quantisation is None else quantisation.kept)
            package.save(str(path))
        (path / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)  # for another library's debugger
        script, answers = self.companions(path)
        shutil.copyfile(Path(__file__).with_name("coreml_verify_on_mac.py"), script)
        write_answers(model, MAC_LIMITS.get(spec.precision, INT8_LIMIT), answers)

    def annotate(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Put `metadata` into the package's own, with what Xcode shows of a model."""
        card, spec = json.loads(metadata["hybridvit.card"]), GraphSpec.read(metadata, path)
        model = _read_spec(path)
        known = model.description.metadata
        known.userDefined.update(metadata)
        known.shortDescription = f"{card['architecture']}, {spec.precision}: {' and '.join(spec.outputs)} of an image"
        known.author, known.license = card["source"], card["licence"]
        (path / SPEC_FILE).write_bytes(model.SerializeToString())

    def load_runner(self, path: Path, *, threads: int | None = None, trust: Trust = NOTHING_ELSE) -> ExportedRunner:
        """Open `path` with Core ML, which chooses the compute units by itself."""
        if reason := self.why_not_here():
            verify = command_line("python", self.companions(path)[0].name)
            raise UsageError(
                f"{path} cannot run on this machine: {reason}. On a Mac, `{verify}` verifies it; here, "
                "export the model with --to onnx or openvino."
            )
        return super().load_runner(path, threads=threads, trust=trust)

    def load_to_prove(self, path: Path) -> ExportedRunner:
        """Core ML on a Mac; elsewhere the written program, computed operation by operation."""
        return ProgramRunner(path) if self.why_not_here() else self.load_runner(path)

    def why_not_here(self) -> str:
        """Core ML is no part of other systems."""
        return "" if sys.platform == "darwin" else NOT_HERE

    def check_weights(self, model: "DeployedModel", path: Path) -> WeightCheck | None:
        """Read the package back: its ends, and each weight by its name.

        Raises ExportError for a difference that the precision does not explain.
        """
        if not self.why_not_here():
            return None
        from hybridvit.export.targets.coreml_model import compare_ends, compare_weights
        from hybridvit.export.targets.coreml_program import load_program

        with quiet():
            program = load_program(path)
        compare_ends(_read_spec(path).description, model)
        num_tensors, max_error = compare_weights(model, program)
        return WeightCheck(
            reason=self.why_not_here(),
            num_tensors=num_tensors,
            max_error=max_error,
        )


def _check(model: "DeployedModel", spec: GraphSpec) -> None:
    from hybridvit.models.hat.fixed_size import depends_on_size

    if spec.image_sizes and depends_on_size(model):
        raise UsageError(
            f"image_sizes is set, but {model.backbone.card.architecture} computes positions from the size, which Core "
            "ML wants as constants. Export one package per image_size."
        )
    if spec.pixels == "uint8" and (spec.batch != 1 or spec.channels not in (1, 3)):
        raise UsageError(
            f"uint8 is set, with {spec.batch} images of {spec.channels} channels per call, but the pixels of Core ML "
            "are one image, RGB or grey. Leave the batch at 1, or uint8 out."
        )


def _converted(model: "DeployedModel", spec: GraphSpec) -> Any:
    import coremltools as ct
    import torch

    from hybridvit.export.program import exported_program
    from hybridvit.export.targets.coreml_model import PlanarModel, class_names

    names = class_names(model)
    shapes = [(spec.batch, spec.channels, *size) for size in spec.sizes]
    default = (spec.batch, spec.channels, *spec.image_size)
    shape = ct.EnumeratedShapes(shapes, default=default) if len(shapes) > 1 else default
    if spec.pixels == "uint8":
        layout = ct.colorlayout.RGB if spec.channels == 3 else ct.colorlayout.GRAYSCALE
        given = ct.ImageType(name=INPUT, shape=shape, color_layout=layout)
    else:
        given = ct.TensorType(name=INPUT, shape=shape, dtype=np.float32)
    outputs = [
        ct.TensorType(name=name, dtype=np.int32 if name == "indices" else np.float32)
        for name in (("probabilities",) if names else ()) + spec.outputs
    ]

    def converted(program: Any, form: str, **described: Any) -> Any:
        return ct.convert(
            program,
            convert_to=form,
            minimum_deployment_target=ct.target.iOS17,
            compute_precision=ct.precision.FLOAT32 if spec.precision == "fp32" else ct.precision.FLOAT16,
            skip_model_load=True,
            **described,
        )

    try:
        program = exported_program(PlanarModel(model, labelled=bool(names)))
        if not names:
            return converted(program, "mlprogram", inputs=[given], outputs=outputs)
        # in two steps: with a classifier coremltools 9.0 miscounts the outputs that it has descriptions of
        between = converted(program, "milinternal", inputs=[given], outputs=outputs)
        between.functions["main"].output_types = None
        labels = ct.ClassifierConfig(names, predicted_probabilities_output="probabilities")
        return converted(between, "mlprogram", classifier_config=labels)
    except (NotImplementedError, ValueError, RuntimeError, AttributeError, TypeError) as error:
        raise ExportError(
            f"coremltools {ct.__version__} cannot convert this model ({type(error).__name__}: {first_line(error)}) "
            f"with torch "
            f"{torch.__version__}. Another version of coremltools or torch may."
        ) from error


def _with_int8_weights(package: Any, kept: Sequence[str]) -> Any:
    """Weights as int8 with a scale per output channel; those of the modules named `kept` stay fp16."""
    import coremltools.optimize.coreml as compression

    constants = [f"p_{name.replace('.', '_')}_weight" for name in kept]
    config = compression.OptimizationConfig(
        global_config=compression.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=512),
        op_name_configs={f"{name}{suffix}": None for name in constants for suffix in ("", "_to_fp16")},
    )
    return compression.linear_quantize_weights(package, config)


def _read_spec(path: Path) -> Any:
    """The protobuf of a package."""
    file = path / SPEC_FILE
    if not file.is_file():
        raise CheckpointError(
            f"There is no {file}. A Core ML package is a folder: copy all of it, or export one with `hybridvit export "
            "CHECKPOINT --to coreml`."
        )
    with quiet():
        from coremltools.proto import Model_pb2
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    model = Model_pb2.Model()
    try:
        model.ParseFromString(file.read_bytes())
    except DecodeError as error:
        raise CheckpointError(f"{path} is no Core ML package that can be read ({error}). Export it again.") from error
    return model
