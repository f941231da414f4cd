"""FastViT's architecture as values: the published variants, and every ablation of the paper as an option."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from hybridvit.errors import UsageError
from hybridvit.models.checks import check_flag, check_integer, check_same_stages, check_whole_numbers, is_whole
from hybridvit.models.family import FamilyConfig, same_mixers

Mixer = Literal["repmixer", "attention", "pooling"]
Part = Literal["stem", "downsample", "mixer", "ffn", "head"]


@dataclass(frozen=True, kw_only=True)
class FastViTConfig(FamilyConfig):
    """The architecture; the defaults are those of the released models."""

    widths: tuple[int, ...]  # channels per stage
    mlp_ratio: int
    mixers: tuple[Mixer, ...] = ("repmixer",) * 4  # per stage; attention stages begin with a positional encoding
    mixer_kernel: int = 3  # of RepMixer and pooling
    stem: Literal["factorised", "dense"] = "factorised"  # three over-parameterised convs, or one 7x7 stride 4
    stem_scale: bool = True  # the 1x1 branch of the first two
    downsample: Literal["factorised", "dense"] = "factorised"  # grouped kxk then 1x1, or one 3x3
    downsample_kernel: int = 7  # of the grouped conv, over-parameterised by a 3x3 (by a 1x1 if it is 3 itself)
    downsample_activation: bool = False  # one more between the grouped conv and the 1x1
    downsample_squeeze_excite: tuple[
        int, ...
    ] = ()  # stages, by number from 0, whose downsampling weighs its channels before
    ffn_kernel: int | None = 7  # of the depthwise conv that opens the FFN; None: no such conv
    position_kernel: int = 7
    norm: Literal["batch", "layer", "group"] = "batch"  # of FFN, attention and pooling
    attention_norm: Literal["batch", "layer"] | None = None  # of attention; "layer" has eps 1e-5; None: as `norm`
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
        for name in ("stem_scale", "downsample_activation"):
            check_flag(name, getattr(self, name))
        self._check_squeezed_stages()
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

    @property
    def first_convs(self) -> tuple[str, ...]:
        if self.stem == "dense":
            return ("stem",)
        has_scale = self.stem_scale and "stem" in self.overparameterised
        return ("stem.0.conv.kxk.conv", *(("stem.0.conv.scale.conv",) if has_scale else ()))

    def without_effect(self) -> dict[str, tuple[bool, str]]:
        attends = "attention" in self.mixers
        dense = (self.downsample == "dense", "downsample='dense' is one 3x3, with nothing between two convolutions")
        single = len(self.depths) == 1
        return {
            "stem_scale": (
                self.stem == "dense" or "stem" not in self.overparameterised,
                "the stem has no branches, by stem='dense' or by what overparameterised names",
            ),
            "downsample": (single, "one stage has no downsampling before it"),
            "downsample_activation": (True, "one stage has no downsampling before it") if single else dense,
            "downsample_squeeze_excite": dense,
            "attention_norm": (not attends, "no stage has attention"),
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

    def _check_squeezed_stages(self) -> None:
        stages, count = self.downsample_squeeze_excite, len(self.depths)
        if not isinstance(stages, tuple) or not all(is_whole(stage, 1) and stage < count for stage in stages):
            raise UsageError(
                f"downsample_squeeze_excite is {stages!r}, but must be a tuple of stages that begin with a "
                f"downsampling: here 1 to {count - 1}, where 0 is the first."
            )
        if len(set(stages)) < len(stages):
            raise UsageError(f"downsample_squeeze_excite is {stages!r}, which names a stage twice. Name each once.")

    def _check_choice(self, name: str, allowed: tuple[str, ...]) -> None:
        values = getattr(self, name)
        if name in ("mixers", "overparameterised") and not isinstance(values, tuple):
            raise UsageError(f"{name} is {values!r}, but must be a tuple of {', '.join(map(repr, allowed))}.")
        if name == "attention_norm" and values is None:
            return
        for value in values if isinstance(values, tuple) else (values,):
            if value not in allowed:
                raise UsageError(f"{name} is {value!r}, but must be one of {', '.join(map(repr, allowed))}.")


HEAD_DIM = 32
_CHOICES: dict[str, tuple[str, ...]] = {
    "mixers": ("repmixer", "attention", "pooling"),
    "stem": ("factorised", "dense"),
    "downsample": ("factorised", "dense"),
    "norm": ("batch", "layer", "group"),
    "attention_norm": ("batch", "layer"),
    "activation": ("gelu", "relu", "silu"),
    "overparameterised": ("stem", "downsample", "mixer", "ffn", "head"),
    "head": ("expand", "plain"),
    "training_form": ("collapsed", "branches"),
}

_R: tuple[Mixer, ...] = ("repmixer",) * 4
_A: tuple[Mixer, ...] = ("repmixer", "repmixer", "repmixer", "attention")
_S = (64, 128, 256, 512)


def _mci(depths: tuple[int, ...], width: int) -> FastViTConfig:
    """An image tower of MobileCLIP or MobileCLIP2, with four stages or, as FastVLM's FastViTHD, with five."""
    has_five = len(depths) == 5
    mixers: tuple[Mixer, ...] = (*_R[:3], *_A[3:] * (len(depths) - 3))
    return FastViTConfig(
        depths=depths,
        widths=tuple(width * 2**stage for stage in range(len(depths))),
        mlp_ratio=4 if has_five else 3,
        mixers=mixers,
        stem_scale=not has_five,
        downsample_activation=True,
        downsample_squeeze_excite=() if has_five else (2, 3),
        attention_norm="layer" if has_five else None,
    )


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
    "fastvit_mci_debug": FastViTConfig(  # something of each of the five below
        depths=(1, 1, 1, 1, 1),
        widths=(4, 8, 16, 32, 64),
        mlp_ratio=2,
        mixers=("repmixer", "repmixer", "repmixer", "attention", "attention"),
        stem_scale=False,
        downsample_activation=True,
        downsample_squeeze_excite=(3,),  # of 32 channels: timm's reference takes none of fewer than 8 inside
        attention_norm="layer",
    ),
    "fastvit_mci0": _mci((2, 6, 10, 2), 64),
    "fastvit_mci1": _mci((4, 12, 20, 4), 64),
    "fastvit_mci2": _mci((4, 12, 24, 4), 80),
    "fastvit_mci3": _mci((2, 12, 24, 4, 2), 96),
    "fastvit_mci4": _mci((2, 12, 24, 4, 4), 128),
}
