"""Classifier heads: an optional norm, global pooling, dropout, a linear layer."""

import copy
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hybridvit.errors import UsageError
from hybridvit.folding.batch_norm import is_batch_norm
from hybridvit.folding.foldable import Foldable
from hybridvit.folding.kernel import Affine, Kernel
from hybridvit.models.channel_norm import ChannelLayerNorm

GlobalPool = Literal["avg", "max", ""]


class ClassifierHead(nn.Module):
    """Norm (none by default), global pooling, dropout, linear layer.

    With no pooling ("") and no classes the normalised map passes.
    """

    def __init__(self, in_features: int, num_classes: int, *, global_pool: GlobalPool, drop_rate: float) -> None:
        super().__init__()
        self.in_features, self.pool_type = in_features, global_pool
        self.norm: nn.Module = nn.Identity()
        self.global_pool: nn.Module = nn.Identity()
        self.drop = nn.Dropout(drop_rate)
        self.fc: nn.Module = nn.Identity()
        self.reset(num_classes, global_pool)

    def reset(self, num_classes: int, global_pool: GlobalPool | None = None) -> None:
        """A new linear layer (none for 0 classes), where and as the old one is.

        The pooling changes only if given, or from none to the average where classes need one.

        Raises:
            UsageError: for an unknown pooling, or for classes and "".
        """
        kept: GlobalPool = self.pool_type or ("avg" if num_classes else "")
        pool_type = kept if global_pool is None else global_pool
        pooling = _pooling(pool_type)
        if num_classes and not pool_type:
            raise UsageError(
                f"A classifier of {num_classes} classes needs a pooled vector, but global_pool is ''. "
                "Use global_pool='avg', or num_classes=0 for the feature map."
            )
        self.pool_type, self.global_pool = pool_type, pooling
        self.fc = nn.Linear(self.in_features, num_classes) if num_classes else nn.Identity()
        self.train(self.training)

    def forward(self, x: Float[Tensor, "b c h w"], pre_logits: bool = False) -> Tensor:
        pooled = self.drop(self.global_pool(self.norm(x)))
        return pooled if pre_logits else self.fc(pooled)


class NormHead(ClassifierHead, Foldable):
    """A classifier head that begins with a norm: BatchNorm, or LayerNorm over the channels."""

    def __init__(
        self, norm: nn.Module, in_features: int, num_classes: int, *, global_pool: GlobalPool, drop_rate: float
    ) -> None:
        super().__init__(in_features, num_classes, global_pool=global_pool, drop_rate=drop_rate)
        self.norm = norm

    def folded(self) -> nn.Module:
        """Without a plain linear layer behind the average there is nothing to fold the norm into: it stays."""
        has_known_norm = is_batch_norm(self.norm) or type(self.norm) is ChannelLayerNorm
        if type(self.fc) is nn.Linear and self.pool_type == "avg" and has_known_norm:
            return FoldedHead(self.norm, self.fc, drop_rate=self.drop.p).eval()
        head = ClassifierHead(self.in_features, 0, global_pool=self.pool_type, drop_rate=self.drop.p)
        head.norm, head.fc = copy.deepcopy(self.norm), copy.deepcopy(self.fc)
        return head.eval()


class FoldedHead(ClassifierHead):
    """`NormHead` for inference: the norm's affine part commutes with the average and is inside the linear layer.

    The pre-logits apply it by themselves.
    """

    def __init__(self, norm: nn.Module, fc: nn.Linear, *, drop_rate: float) -> None:
        super().__init__(fc.in_features, 0, global_pool="avg", drop_rate=drop_rate)
        if is_batch_norm(norm):
            affine = Affine.of(norm)
        else:
            assert isinstance(norm, ChannelLayerNorm)
            affine, self.norm = Affine.of_layer_norm(norm, ChannelLayerNorm), norm.plain()
        self.fc = Kernel.of(fc).after(affine).as_linear(fc)
        self.gain = nn.Parameter(affine.gain.to(fc.weight), requires_grad=False)
        self.shift = nn.Parameter(affine.shift.to(fc.weight), requires_grad=False)

    def reset(self, num_classes: int, global_pool: GlobalPool | None = None) -> None:
        if num_classes or global_pool == "":
            raise UsageError(
                "The head of this folded model holds the norm before the classifier, so the classifier cannot be "
                "replaced. Call reset_classifier on the model before it is folded."
            )
        super().reset(0, "avg")

    def forward(self, x: Float[Tensor, "b c h w"], pre_logits: bool = False) -> Tensor:
        pooled = self.global_pool(self.norm(x))
        if pre_logits or not isinstance(self.fc, nn.Linear):
            return torch.addcmul(self.shift, pooled, self.gain)
        return self.fc(pooled)


def _pooling(name: GlobalPool) -> nn.Module:
    poolings = {"avg": nn.AdaptiveAvgPool2d, "max": nn.AdaptiveMaxPool2d}
    if name == "":
        return nn.Identity()
    if name not in poolings:
        raise UsageError(f"global_pool is '{name}', but must be 'avg', 'max' or '' (no pooling).")
    return nn.Sequential(poolings[name](1), nn.Flatten(1))
