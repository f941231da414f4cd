"""The training form of depthwise blocks, collapsed: one convolution, two reductions, one multiply-add.

Given the batch statistics, a depthwise block is linear per channel, `out = a * y + c * x + d` with y its only
convolution: the statistics of the 1x1 and identity branches follow from those of x. Mean m and variance v of x
give w * m and w^2 * v for a branch with weight w. Outputs, gradients and running statistics are those of the
branch-by-branch form; only the number of passes over memory changes. On a CPU a step takes 15 to 27 % less memory, and
is 1.01 to 1.04 times as fast (docs/lab-log.md).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hybridvit.folding.batch_norm import check_batch


@dataclass(frozen=True, kw_only=True)
class PointBranch:
    """`sign * norm(weight * x)`: a branch of a depthwise block that sees one pixel; without weight, the identity."""

    norm: nn.BatchNorm2d
    weight: Float[Tensor, "c 1 1 1"] | None = None
    sign: int = 1


def collapsed_forward(
    x: Float[Tensor, "b c h w"],
    conv: nn.Conv2d,
    norm: nn.BatchNorm2d,
    branches: tuple[PointBranch, ...],
    *,
    layer_scale: Float[Tensor, "c 1 1"] | None = None,
) -> Float[Tensor, "b out oh ow"]:
    """`norm(conv(x)) + branches(x)` in training mode; with a layer scale, `x + layer_scale * (that sum)`.

    `conv` is depthwise (groups = input channels; more outputs than inputs only without a layer scale). All norms
    use batch statistics and a fixed momentum; their running statistics are updated. No second derivative.

    Raises:
        UsageError: for a batch that leaves one value per channel.
    """
    check_batch(len(x), x.shape[-2:], conv.stride[0])
    y = F.conv2d(x, conv.weight, None, conv.stride, conv.padding, 1, conv.groups)
    count = y.numel() // y.shape[1]
    point = subsample(x, conv.stride[0])
    if conv.out_channels > conv.in_channels:
        point = point.repeat_interleave(conv.out_channels // conv.in_channels, dim=1)
    gain: Tensor = norm.weight
    shift = norm.bias + sum(branch.sign * branch.norm.bias for branch in branches)
    gains = torch.stack([branch.sign * branch.norm.weight for branch in branches])
    weights = torch.stack([torch.ones_like(gain) if b.weight is None else b.weight.flatten() for b in branches])
    if layer_scale is not None:
        gain, shift, gains = (values * layer_scale.flatten() for values in (gain, shift, gains))
    gain, shift, gains, weights = (_at_least_float32(values) for values in (gain, shift, gains, weights))
    eps = gains.new_tensor([[branch.norm.eps] for branch in branches])
    combine = _combine if torch.compiler.is_compiling() else _Combine.apply
    out, mean_y, var_y, mean, var = combine(
        y, point, gain, shift, gains, weights, eps, norm.eps, float(layer_scale is not None)
    )
    with torch.no_grad():
        _update_running(norm, mean_y, var_y, count)
        for branch, weight in zip(branches, weights, strict=True):
            _update_running(branch.norm, weight * mean, weight.square() * var, count)
    return out


def _combine(y, x, gain, shift, gains, weights, eps, eps_y, residual):
    """BatchNorm(y) * gain + shift + the x terms (+ x if `residual` is 1), in plain operations, which a compiler fuses.

    The x terms have BatchNorm gains `gains` (t c), 1x1 weights `weights` (t c) and `eps` (t 1).
    """
    var_y, mean_y = torch.var_mean(_at_least_float32(y), (0, 2, 3), correction=0)
    var, mean = torch.var_mean(_at_least_float32(x), (0, 2, 3), correction=0)
    slope = (gains * weights * torch.rsqrt(weights.square() * var + eps)).sum(0)
    gain = gain * torch.rsqrt(var_y + eps_y)
    shift = shift - slope * mean - gain * mean_y
    out = gain[:, None, None] * y + (slope + residual)[:, None, None] * x + shift[:, None, None]
    return out.to(torch.promote_types(x.dtype, y.dtype)), mean_y, var_y, mean, var


class _Combine(torch.autograd.Function):
    """`_combine` with its derivative by hand: three reductions and no intermediate image kept."""

    @staticmethod
    def forward(ctx, y, x, gain, shift, gains, weights, eps, eps_y, residual):
        memory_format = _layout(y)
        x = x.contiguous(memory_format=memory_format)
        mean, var = _moments(x)
        inverse = torch.rsqrt(weights.square() * var + eps)
        slopes = gains * weights * inverse  # t c
        slope = slopes.sum(0)
        out, mean_y, inverse_y = torch.native_batch_norm(y, gain, shift - slope * mean, None, None, True, 0.0, eps_y)
        total = slope + residual
        out = torch.addcmul(out, x, total[:, None, None]).to(torch.promote_types(x.dtype, y.dtype))
        ctx.save_for_backward(y, x, gain, gains, weights, eps, mean, mean_y, inverse, inverse_y, slopes, total)
        ctx.eps_y = eps_y
        var_y = inverse_y.reciprocal().square() - eps_y
        ctx.mark_non_differentiable(mean_y, var_y, mean, var)
        return out, mean_y, var_y, mean, var

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad, *_):
        y, x, gain, gains, weights, eps, mean, mean_y, inverse, inverse_y, slopes, total = ctx.saved_tensors
        grad = grad.contiguous(memory_format=_layout(y))
        count = grad.numel() // grad.shape[1]
        batch_norm_backward = torch.ops.aten.native_batch_norm_backward
        grad_y, grad_gain, grad_shift = batch_norm_backward(
            grad.to(y.dtype), y, gain, None, None, mean_y, inverse_y, True, ctx.eps_y, [True, True, True]
        )
        # with an inverse deviation of 1 this is the plain sum of grad * (x - mean)
        _, moment, _ = batch_norm_backward(
            grad, x.to(grad.dtype), None, None, None, mean, torch.ones_like(mean), True, 0.0, [False, True, False]
        )
        relative = inverse.square()
        grad_gains = weights * inverse * moment
        grad_weights = gains * eps * inverse * relative * moment
        # x moves mean and variance too: the two corrections of a BatchNorm's derivative, summed over the terms
        spread = (slopes * weights.square() * relative).sum(0) * moment / -count
        offset = slopes.sum(0) * grad_shift / -count - spread * mean
        grad_x = torch.addcmul(offset[:, None, None], x, spread[:, None, None])
        grad_x = grad_x.addcmul_(grad, total[:, None, None]).to(x.dtype)
        return grad_y, grad_x, grad_gain, grad_shift, grad_gains, grad_weights, None, None, None


class _Subsample(torch.autograd.Function):
    """The gradient of slicing is channels-first always, and each operation before it would then convert."""

    @staticmethod
    def forward(ctx, x, stride):
        ctx.shape, ctx.stride, ctx.layout = x.shape, stride, _layout(x)
        return x[..., ::stride, ::stride].contiguous(memory_format=ctx.layout)

    @staticmethod
    def backward(ctx, grad):
        full = torch.zeros(ctx.shape, dtype=grad.dtype, device=grad.device).contiguous(memory_format=ctx.layout)
        full[..., :: ctx.stride, :: ctx.stride] = grad
        return full, None


def subsample(x: Float[Tensor, "b c h w"], stride: int) -> Float[Tensor, "b c oh ow"]:
    """Every `stride`-th pixel of each axis, `x[..., ::stride, ::stride]`, whose gradient keeps the layout of x."""
    return x if stride == 1 else _Subsample.apply(x, stride)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance per channel, at least in float32."""
    x = _at_least_float32(x)
    if x.device.type == "cpu":  # 4 to 20 times as fast as var_mean there
        return torch.batch_norm_update_stats(x, None, None, 0.0)
    var, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    return mean, var


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _update_running(norm: nn.BatchNorm2d, mean: Tensor, var: Tensor, count: int) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    assert norm.momentum is not None
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), norm.momentum)
    norm.running_var.lerp_((var * (count / (count - 1))).to(norm.running_var.dtype), norm.momentum)
    norm.num_batches_tracked.add_(1)


def _layout(x: Tensor) -> torch.memory_format:
    return torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
