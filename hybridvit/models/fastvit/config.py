"""FastViT's architecture as values: the published variants, and every ablation of the paper as an option."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from hybridvit.errors import UsageError
from hybridvit.models.checks import check_integer, check_same_stages, check_whole_numbers, is_whole
from hybridvit.models.family import FamilyConfig, same_mixers

Mixer = Literal["repmixer", "attention", "pooling"]
Part = Literal["stem", "downsample", "mixer", "ffn", "head"]


@dataclass(frozen=True, kw_only=True)
class FastViTConfig(FamilyConfig):
    """The architecture; the defaults are those of the released models."""

    depths: tuple[int, ...]  # blocks per stage
    widths: tuple[int, ...]  # channels per stage
    mlp_ratio: int
    mixers: tuple[Mixer, ...] = ("repmixer",) * 4  # per stage; attention stages begin with a positional encoding
    mixer_kernel: int = 3  # of RepMixer and pooling
    stem: Literal["factorised", "dense"] = "factorised"  # three over-parameterised convs, or one 7x7 stride 4
    downsample: Literal["factorised", "dense"] = "factorised"  # grouped kxk then 1x1, or one 3x3
    downsample_kernel: int = 7  # of the grouped conv, over-parameterised by a 3x3 (by a 1x1 if it is 3 itself)
    ffn_kernel: int | None = 7  # of the depthwise conv that opens the FFN; None: no such conv
    position_kernel: int = 7
    norm: Literal["batch", "layer", "group"] = "batch"  # of FFN, attention and pooling
    activation: Literal["gelu", "relu", "silu"] = "gelu"  # in stem, downsampling, FFN and head
    overparameterised: tuple[Part, ...] = ("stem", "downsample", "mixer", "head")
    head: Literal["expand", "plain"] = "expand"  # with or without the conv that doubles the channels
    layer_scale_init: float = 1e-5
    training_form: Literal["collapsed", "branches"] = "collapsed"

    def __post_init__(self) -> None:
        for name in ("depths", "widths"):
            check_whole_numbers(name, getattr(self, name))
        for name, allowed in _CHOICES.items():
            self._check_choice(name, allowed)
        check_same_stages(depths=self.depths, widths=self.widths, mixers=self.mixers)
        check_integer("mlp_ratio", self.mlp_ratio, 1)
        for name in ("mixer_kernel", "downsample_kernel", "ffn_kernel", "position_kernel"):
            size = getattr(self, name)
            if not (is_whole(size, 1) and size % 2) and not (name == "ffn_kernel" and size is None):
                raise UsageError(f"{name} is {size!r}, but a kernel needs an odd size to be centred: 3, 5, 7 ...")
        if not isinstance(self.layer_scale_init, int | float) or not 0 <= self.layer_scale_init < float("inf"):
            raise UsageError(f"layer_scale_init is {self.layer_scale_init!r}, but must be a number from 0, like 1e-5.")
        attending = [width for width, mixer in zip(self.widths, self.mixers, strict=True) if mixer == "attention"]
        if any(width % HEAD_DIM for width in attending):
            raise UsageError(
                f"widths of attention stages are {attending}, but must be multiples of {HEAD_DIM}, the size of an "
                "attention head."
            )
        for narrow, wide in pairwise(self.widths):
            if self.downsample == "factorised" and wide % narrow:
                raise UsageError(
                    f"widths go from {narrow} to {wide}, but a factorised downsampling makes whole multiples of its "
                    f"channels. Use {narrow * max(1, round(wide / narrow))}, or downsample='dense'."
                )

    def without_effect(self) -> dict[str, tuple[bool, str]]:
        attends = "attention" in self.mixers
        return {
            "downsample_kernel": (self.downsample == "dense", "downsample='dense' is a 3x3"),
            "position_kernel": (not attends, "no stage has attention, and only these have a positional encoding"),
            "mixer_kernel": (set(self.mixers) == {"attention"}, "attention has no kernel"),
        }

    def check_applicable(self, given: Collection[str]) -> None:
        super().check_applicable(given)
        missing = {"stem": self.stem == "dense", "downsample": self.downsample == "dense"}
        missing["mixer"] = "repmixer" not in self.mixers
        missing["head"] = self.head == "plain"
        if "overparameterised" in given:
            for part in self.overparameterised:
                if missing.get(part):
                    raise UsageError(f"overparameterised names '{part}', which has no such layer here. Leave it out.")

    def on_debug_size(self, given: Mapping[str, Any], debug: Any, share: float) -> dict[str, Any]:
        return same_mixers(self, debug, given)

    def _check_choice(self, name: str, allowed: tuple[str, ...]) -> None:
        values = getattr(self, name)
        if name in ("mixers", "overparameterised") and not isinstance(values, tuple):
            raise UsageError(f"{name} is {values!r}, but must be a tuple of {', '.join(map(repr, allowed))}.")
        for value in values if isinstance(values, tuple) else (values,):
            if value not in allowed:
                raise UsageError(f"{name} is {value!r}, but must be one of {', '.join(map(repr, allowed))}.")


HEAD_DIM = 32
_CHOICES: dict[str, tuple[str, ...]] = {
    "mixers": ("repmixer", "attention", "pooling"),
    "stem": ("factorised", "dense"),
    "downsample": ("factorised", "dense"),
    "norm": ("batch", "layer", "group"),
    "activation": ("gelu", "relu", "silu"),
    "overparameterised": ("stem", "downsample", "mixer", "ffn", "head"),
    "head": ("expand", "plain"),
    "training_form": ("collapsed", "branches"),
}

_R: tuple[Mixer, ...] = ("repmixer",) * 4
_A: tuple[Mixer, ...] = ("repmixer", "repmixer", "repmixer", "attention")
_S = (64, 128, 256, 512)
VARIANTS: dict[str, FastViTConfig] = {
    "fastvit_debug": FastViTConfig(depths=(1, 1, 1, 1), widths=(4, 8, 16, 32), mlp_ratio=2, mixers=_A),
    "fastvit_t8": FastViTConfig(depths=(2, 2, 4, 2), widths=(48, 96, 192, 384), mlp_ratio=3, mixers=_R),
    "fastvit_t12": FastViTConfig(depths=(2, 2, 6, 2), widths=_S, mlp_ratio=3, mixers=_R),
    "fastvit_s12": FastViTConfig(depths=(2, 2, 6, 2), widths=_S, mlp_ratio=4, mixers=_R),
    "fastvit_sa12": FastViTConfig(depths=(2, 2, 6, 2), widths=_S, mlp_ratio=4, mixers=_A),
    "fastvit_sa24": FastViTConfig(depths=(4, 4, 12, 4), widths=_S, mlp_ratio=4, mixers=_A),
    "fastvit_sa36": FastViTConfig(depths=(6, 6, 18, 6), widths=_S, mlp_ratio=4, mixers=_A, layer_scale_init=1e-6),
    "fastvit_ma36": FastViTConfig(
        depths=(6, 6, 18, 6), widths=(76, 152, 304, 608), mlp_ratio=4, mixers=_A, layer_scale_init=1e-6
    ),
}
