"""FasterViT's architecture as values: the published variants, and every ablation of the paper as an option."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from hybridvit.errors import UsageError
from hybridvit.models.checks import (
    check_choice,
    check_flag,
    check_heads,
    check_integer,
    check_layer_scale,
    check_same_stages,
    check_whole_numbers,
)
from hybridvit.models.family import FamilyConfig, same_mixers
from hybridvit.models.hat.config import CarrierSource, HATConfig

Mixer = Literal["conv", "hat", "window", "twins", "edgevit"]
MIXERS: tuple[Mixer, ...] = ("conv", "hat", "window", "twins", "edgevit")


@dataclass(frozen=True, kw_only=True)
class FasterViTConfig(FamilyConfig):
    """The architecture; the defaults are those of the released models."""

    depths: tuple[int, ...]  # blocks per stage
    widths: tuple[int, ...]  # channels per stage
    num_heads: tuple[int, ...]  # per stage; used where it attends
    stem_width: int = 64  # channels between the two convolutions of the stem
    mixers: tuple[Mixer, ...] = ("conv", "conv", "hat", "window")  # per stage; "hat" has carriers, "window" none
    windows: tuple[int, ...] = (7, 7, 7, 7)  # side of the windows per stage; used where it attends in windows
    carrier_size: int = 2  # carriers per window and side
    carrier_source: CarrierSource = "map"
    carrier_attention: bool = True
    relative_bias: bool = True
    position_embedding: bool = True
    position_hidden: int = 512  # hidden features of the position MLPs
    propagate: bool = False  # add the carriers to the tokens at the end of a stage
    mlp_ratio: int = 4
    layer_scale_init: float | None = None  # of the attention stages; None: no layer scale
    conv_layer_scale_init: float | None = None  # of the convolutional stages

    def __post_init__(self) -> None:
        for name in ("depths", "widths", "num_heads", "windows"):
            check_whole_numbers(name, getattr(self, name))
        if not isinstance(self.mixers, tuple):
            raise UsageError(f"mixers is {self.mixers!r}, but must be a tuple of {', '.join(map(repr, MIXERS))}.")
        for mixer in self.mixers:
            check_choice("mixers", mixer, MIXERS)
        check_same_stages(
            depths=self.depths,
            widths=self.widths,
            num_heads=self.num_heads,
            mixers=self.mixers,
            windows=self.windows,
        )
        check_integer("stem_width", self.stem_width, 1)
        check_flag("relative_bias", self.relative_bias)
        check_layer_scale("conv_layer_scale_init", self.conv_layer_scale_init)
        for width, heads, mixer in zip(self.widths, self.num_heads, self.mixers, strict=True):
            if mixer != "conv":
                check_heads(width, heads)
        if "hat" in self.mixers:
            check_integer("carrier_size", self.carrier_size, 1)
        for stage in range(len(self.depths)):
            self.attention(stage)  # checks the values that only attention has

    def attention(self, stage: int) -> HATConfig:
        """The attention of a stage in windows."""
        return HATConfig(
            num_heads=self.num_heads[stage],
            window_size=self.windows[stage],
            carrier_size=self.carrier_size if self.mixers[stage] == "hat" else 0,
            mlp_ratio=self.mlp_ratio,
            layer_scale_init=self.layer_scale_init,
            propagate=self.propagate,
            carrier_source=self.carrier_source,
            carrier_attention=self.carrier_attention,
            relative_bias="mlp" if self.relative_bias else "none",
            position_embedding=self.position_embedding,
            position_hidden=self.position_hidden,
        )

    @property
    def first_convs(self) -> tuple[str, ...]:
        return ("stem.0.conv",)

    def without_effect(self) -> dict[str, tuple[bool, str]]:
        no_carriers = ("hat" not in self.mixers, "no stage has mixer 'hat', and only these have carriers")
        no_windows = ({"hat", "window"}.isdisjoint(self.mixers), "no stage attends in windows")
        only_conv = (set(self.mixers) == {"conv"}, "all stages are convolutional")
        needs_carriers = ("carrier_size", "carrier_source", "carrier_attention", "propagate")
        of_windows = ("windows", "relative_bias", "position_embedding", "position_hidden")
        without_effect = dict.fromkeys(needs_carriers, no_carriers) | dict.fromkeys(of_windows, no_windows)
        without_effect |= dict.fromkeys(("num_heads", "mlp_ratio", "layer_scale_init"), only_conv)
        without_effect["conv_layer_scale_init"] = ("conv" not in self.mixers, "no stage is convolutional")
        return without_effect

    def on_debug_size(self, given: Mapping[str, Any], debug: Any, share: float) -> dict[str, Any]:
        """The windows shrink with the image."""
        options = {"windows": self.windows} | same_mixers(self, debug, given)
        return options | {"windows": tuple(max(2, round(int(window) * share)) for window in options["windows"])}

    def check_image_size(self, given: Collection[str], height: int, width: int) -> None:
        """Refuse windows that no map of an image of this size fills: UsageError names the stage and its map."""
        if "windows" not in given:
            return
        for stage, (window, mixer) in enumerate(zip(self.windows, self.mixers, strict=True)):
            stride = 4 * 2**stage
            map_size = (-(-height // stride), -(-width // stride))
            if mixer in ("hat", "window") and window > max(map_size):
                raise UsageError(
                    f"windows[{stage}] is {window}, but at {height}x{width} px the map of that stage is only "
                    f"{map_size[0]}x{map_size[1]}: the rest of the window would be padding. Use a window up to "
                    f"{max(map_size)}, or give the image_size that it is meant for."
                )


_LARGE = FasterViTConfig(
    depths=(3, 3, 12, 5),
    widths=(196, 392, 784, 1568),
    num_heads=(4, 8, 16, 32),
    propagate=True,
    layer_scale_init=1e-5,
)
_21K = replace(_LARGE, mixers=("conv", "conv", "window", "window"), propagate=False)
VARIANTS: dict[str, FasterViTConfig] = {
    "fastervit_debug": FasterViTConfig(
        depths=(1, 1, 2, 1),
        widths=(4, 8, 16, 32),
        num_heads=(1, 2, 4, 8),
        stem_width=4,
        windows=(3, 3, 3, 3),
        position_hidden=32,
        propagate=True,
        layer_scale_init=1e-5,
        mlp_ratio=2,
    ),
    "fastervit_0": FasterViTConfig(depths=(2, 3, 6, 5), widths=(64, 128, 256, 512), num_heads=(2, 4, 8, 16)),
    "fastervit_1": FasterViTConfig(
        depths=(1, 3, 8, 5), widths=(80, 160, 320, 640), num_heads=(2, 4, 8, 16), stem_width=32
    ),
    "fastervit_2": FasterViTConfig(depths=(3, 3, 8, 5), widths=(96, 192, 384, 768), num_heads=(2, 4, 8, 16)),
    "fastervit_3": FasterViTConfig(
        depths=(3, 3, 12, 5),
        widths=(128, 256, 512, 1024),
        num_heads=(2, 4, 8, 16),
        propagate=True,
        layer_scale_init=1e-5,
    ),
    "fastervit_4": _LARGE,
    "fastervit_5": replace(_LARGE, widths=(320, 640, 1280, 2560)),
    "fastervit_6": replace(_LARGE, widths=(320, 640, 1280, 2560), depths=(3, 3, 16, 8)),
    "fastervit_4_21k_224": replace(_21K, windows=(7, 7, 14, 7)),
    "fastervit_4_21k_384": replace(_21K, windows=(7, 7, 24, 12)),
    "fastervit_4_21k_512": replace(_21K, windows=(7, 7, 32, 16)),
    "fastervit_4_21k_768": replace(_21K, windows=(7, 7, 48, 24)),
}
