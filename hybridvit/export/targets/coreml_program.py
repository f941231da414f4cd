"""Compute what a Core ML program says, operation by operation, in PyTorch: a second reading of what no Linux runs.

It knows the operations that our models come to in MIL, Core ML's language, by their published definitions, and raises
NotImplementedError for another. Sums are in float32 and every result is rounded to the type that the program states,
so that half precision shows up as it would on a device.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def load_program(path: Path) -> Any:
    """The program of a .mlpackage with its weights, as coremltools reads it back from disk."""
    from coremltools.converters.mil.frontend.milproto.load import load
    from coremltools.models import MLModel

    package = MLModel(str(path), skip_model_load=True)
    spec = package.get_spec()
    return load(spec, specification_version=spec.specificationVersion, file_weights_dir=package.weights_dir)


def constants(program: Any) -> dict[str, np.ndarray]:
    """The weights of a program by name, as numbers: compressed ones are expanded."""
    found = {}
    for operation in program.functions["main"].operations:
        if operation.op_type == "const":
            found[operation.outputs[0].name] = operation.outputs[0].val
        elif operation.op_type == "constexpr_affine_dequantize":
            inputs = {name: _argument(value, {}) for name, value in operation.inputs.items()}
            found[operation.outputs[0].name] = _dequantize(**inputs).numpy()
    return {name: value for name, value in found.items() if isinstance(value, np.ndarray)}


@torch.no_grad()
def evaluate(program: Any, images: Tensor) -> dict[str, Tensor]:
    """The outputs by name for `images`, as the program's only input takes them."""
    main = program.functions["main"]
    (name,) = main.inputs
    values: dict[str, Any] = {name: images.float()}
    for operation in main.operations:
        if operation.op_type == "const":
            continue
        compute = OPERATIONS.get(operation.op_type)
        if compute is None:
            raise NotImplementedError(f"the operation {operation.op_type} of MIL")
        inputs = {name: _argument(value, values) for name, value in operation.inputs.items()}
        results = compute(**inputs)
        for output, result in zip(
            operation.outputs, results if isinstance(results, tuple) else (results,), strict=True
        ):
            values[output.name] = _rounded(result, output)
    return {output.name: values[output.name] for output in main.outputs}


def _argument(variable: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(variable, tuple | list):
        return [_argument(each, values) for each in variable]
    if variable.name in values:
        return values[variable.name]
    constant = variable.val
    if isinstance(constant, np.ndarray) and constant.dtype.kind in "fiub":
        tensor = torch.from_numpy(constant.copy())
        return tensor.float() if tensor.is_floating_point() else tensor
    return constant.item() if isinstance(constant, np.generic) else constant


def _rounded(result: Any, output: Any) -> Any:
    if not isinstance(result, Tensor):
        return result
    pairs = zip(output.shape, result.shape, strict=False)  # a side that depends on the input is a symbol
    if len(output.shape) != result.ndim or any(
        side != got for side, got in pairs if isinstance(side, int | np.integer)
    ):
        raise ValueError(f"{output.name} has the shape {tuple(result.shape)}, stated is {tuple(output.shape)}")
    is_half = output.dtype.__name__ == "fp16"
    return result.half().float() if is_half and result.is_floating_point() else result


def _list(values: Any) -> list[int]:
    return [int(value) for value in values]


def _padding(pad_type: str, pad: Any) -> list[int]:
    """Of the top, bottom, left and right."""
    if pad_type not in ("custom", "valid"):
        raise NotImplementedError(f"padding '{pad_type}'")
    return _list(pad) if pad_type == "custom" else [0] * 4


def _conv(
    x: Tensor, weight: Tensor, strides: Any, pad_type: str, pad: Any, dilations: Any, groups: int, bias: Any = None
) -> Tensor:
    top, bottom, left, right = _padding(pad_type, pad)
    padded = F.pad(x, (left, right, top, bottom))
    return F.conv2d(padded, weight, bias, _list(strides), 0, _list(dilations), int(groups))


def _avg_pool(
    x: Tensor,
    kernel_sizes: Any,
    strides: Any,
    pad_type: str,
    pad: Any,
    exclude_padding_from_average: bool,
    ceil_mode: bool,
) -> Tensor:
    top, bottom, left, right = _padding(pad_type, pad)
    if top != bottom or left != right:
        raise NotImplementedError("a pooling with another padding on each side")
    return F.avg_pool2d(
        x, _list(kernel_sizes), _list(strides), (top, left), bool(ceil_mode), not exclude_padding_from_average
    )


def _layer_norm(x: Tensor, axes: Any, epsilon: float, gamma: Any = None, beta: Any = None) -> Tensor:
    dims = _list(axes)
    spread, mean = torch.var_mean(x.double(), dims, correction=0, keepdim=True)
    normal = ((x.double() - mean) / (spread + float(epsilon)).sqrt()).float()
    shape = [x.shape[dim] if dim - x.ndim in dims or dim in dims else 1 for dim in range(x.ndim)]
    normal = normal if gamma is None else normal * gamma.reshape(shape)
    return normal if beta is None else normal + beta.reshape(shape)


def _matmul(x: Tensor, y: Tensor, transpose_x: bool, transpose_y: bool) -> Tensor:
    return (x.mT if transpose_x else x) @ (y.mT if transpose_y else y)


def _slice(
    x: Tensor,
    begin: Any,
    end: Any,
    stride: Any = None,
    begin_mask: Any = None,
    end_mask: Any = None,
    squeeze_mask: Any = None,
) -> Tensor:
    masks = (begin_mask, end_mask, squeeze_mask)
    begin_mask, end_mask, squeeze_mask = ([False] * x.ndim if mask is None else list(mask) for mask in masks)
    steps = [1] * x.ndim if stride is None else _list(stride)
    starts = [None if skip else at for at, skip in zip(_list(begin), begin_mask, strict=True)]
    ends = [None if skip else at for at, skip in zip(_list(end), end_mask, strict=True)]
    cut = x[tuple(slice(*each) for each in zip(starts, ends, steps, strict=True))]
    return cut.squeeze([dim for dim, drop in enumerate(squeeze_mask) if drop])


def _split(x: Tensor, axis: int, split_sizes: Any = None, num_splits: Any = None) -> tuple[Tensor, ...]:
    sizes = x.shape[axis] // int(num_splits) if split_sizes is None else _list(split_sizes)
    return x.split(sizes, int(axis))


def _gather(x: Tensor, indices: Tensor, axis: int, batch_dims: int = 0, validate_indices: bool = False) -> Tensor:
    if batch_dims or indices.ndim != 1:
        raise NotImplementedError("gather in batches")
    return x.index_select(int(axis), indices.long())


def _gelu(x: Tensor, mode: str) -> Tensor:
    if mode == "SIGMOID_APPROXIMATION":
        raise NotImplementedError("gelu by sigmoid")
    return F.gelu(x, approximate="none" if mode == "EXACT" else "tanh")


def _pad(x: Tensor, pad: Any, mode: str, constant_val: float) -> Tensor:
    if mode != "constant":
        raise NotImplementedError(f"padding with '{mode}'")
    pairs = _list(pad)
    return F.pad(x, [side for at in range(len(pairs) - 2, -2, -2) for side in pairs[at : at + 2]], value=constant_val)


def _topk(
    x: Tensor,
    k: int,
    axis: int,
    ascending: bool,
    sort: bool = True,
    return_indices: bool = True,
    output_indices_dtype: str = "int32",
) -> tuple[Tensor, Tensor]:
    values, indices = x.topk(int(k), int(axis), largest=not ascending)
    return values, indices


def _dequantize(quantized_data: Tensor, zero_point: Tensor, scale: Tensor, axis: int) -> Tensor:
    shape = [-1 if dim == int(axis) else 1 for dim in range(quantized_data.ndim)]
    scale, zero_point = (torch.as_tensor(each).float().reshape(shape) for each in (scale, zero_point))
    return scale * (quantized_data.float() - zero_point)


def _upsample_bilinear(x: Tensor, scale_factor_height: float, scale_factor_width: float, align_corners: bool) -> Tensor:
    factors = (float(scale_factor_height), float(scale_factor_width))
    return F.interpolate(x, scale_factor=factors, mode="bilinear", align_corners=bool(align_corners))


def _upsample_nearest(x: Tensor, scale_factor_height: float, scale_factor_width: float) -> Tensor:
    return F.interpolate(x, scale_factor=(float(scale_factor_height), float(scale_factor_width)), mode="nearest")


def _cast(x: Tensor, dtype: str) -> Tensor:
    return x.float() if dtype.startswith("fp") else x.long()


OPERATIONS: dict[str, Callable[..., Any]] = {
    "add": lambda x, y: x + y,
    "avg_pool": _avg_pool,
    "cast": _cast,
    "classify": lambda probabilities, classes: (
        classes[int(probabilities.argmax())],
        dict(zip(classes, probabilities[0], strict=True)),
    ),
    "concat": lambda values, axis, interleave: torch.cat(values, int(axis)),
    "constexpr_affine_dequantize": _dequantize,
    "conv": _conv,
    "expand_dims": lambda x, axes: x.reshape(np.expand_dims(np.empty(x.shape, bool), tuple(_list(axes))).shape),
    "gather": _gather,
    "gelu": _gelu,
    "identity": lambda x: x,
    "layer_norm": _layer_norm,
    "linear": F.linear,
    "matmul": _matmul,
    "mul": lambda x, y: x * y,
    "pad": _pad,
    "real_div": lambda x, y: x / y,
    "reduce_max": lambda x, axes, keep_dims: x.amax(_list(axes), keepdim=bool(keep_dims)),
    "reduce_mean": lambda x, axes, keep_dims: x.mean(_list(axes), keepdim=bool(keep_dims)),
    "relu": lambda x: x.relu(),
    "reshape": lambda x, shape: x.reshape(_list(shape)),
    "rsqrt": lambda x, epsilon: (x + epsilon).rsqrt(),
    "sigmoid": lambda x: x.sigmoid(),
    "slice_by_index": _slice,
    "softmax": lambda x, axis: x.softmax(int(axis)),
    "split": _split,
    "square": lambda x: x.square(),
    "squeeze": lambda x, axes: x.squeeze(_list(axes)),
    "sub": lambda x, y: x - y,
    "topk": _topk,
    "transpose": lambda x, perm: x.permute(_list(perm)),
    "upsample_bilinear": _upsample_bilinear,
    "upsample_nearest_neighbor": _upsample_nearest,
}
"""By name of the operation; the arguments are named as in MIL."""
