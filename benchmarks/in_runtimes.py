"""Models in the runtimes of their exports, opened the same way for every side of a comparison."""

from collections.abc import Callable

import torch
from torch import nn

Run = Callable[[], object]


def to_onnx(model: nn.Module, images: torch.Tensor) -> bytes:
    """The model as ONNX by the exporter's defaults, for images of this shape alone."""
    with torch.no_grad():
        program = torch.onnx.export(model, (images,), dynamo=True, verbose=False)
    assert program is not None
    return program.model_proto.SerializeToString()


def opened(target: str, content: bytes, images: torch.Tensor, *, weights: bytes = b"", threads: int = 2) -> Run:
    """A run of a file's content on `images`, in fp32; `weights` is what lies beside an OpenVINO file."""
    if target == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # idle threads sleep: those of one session would spin while the next one is timed
        options.add_session_config_entry("session.force_spinning_stop", "1")
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        inputs = {session.get_inputs()[0].name: images.numpy()}
        return lambda: session.run(None, inputs)
    if target == "openvino":
        import openvino

        settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        core = openvino.Core()
        request = core.compile_model(core.read_model(content, weights), "CPU", settings).create_infer_request()
        return lambda: request.infer([images.numpy()])
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(content)
    method = program.load_method("forward")
    return lambda keep=(program, content): method.execute((images,))  # type: ignore[misc]
