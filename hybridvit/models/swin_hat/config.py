"""The architecture of Swin with hierarchical attention as values. Importing it needs no torch."""

from dataclasses import dataclass

from hybridvit.errors import UsageError
from hybridvit.models.checks import check_heads, check_integer, check_same_stages, check_whole_numbers
from hybridvit.models.family import FamilyConfig
from hybridvit.models.hat.config import HATConfig, RelativeBiasKind


@dataclass(frozen=True, kw_only=True)
class SwinHATConfig(FamilyConfig):
    """The architecture; the defaults are those of Swin-T and of FasterViT's carriers."""

    depths: tuple[int, ...] = (2, 2, 6, 2)  # blocks per stage
    widths: tuple[int, ...] = (96, 192, 384, 768)  # channels per stage
    num_heads: tuple[int, ...] = (3, 6, 12, 24)  # per stage
    window_size: int = 7  # side of the windows
    carrier_stages: tuple[int, ...] = (0, 1, 2)  # 0-based; at 224 px the last stage is a single window
    carrier_size: int = 2  # carriers per window and side in these stages; 0: none
    propagate: bool = True  # add the carriers to the tokens at the end of a stage
    relative_bias: RelativeBiasKind = "table"  # Swin's, for one window size; the carriers' bias fits any grid
    position_embedding: bool = True  # starts at zero: Swin has none
    position_hidden: int = 512  # hidden features of the position MLPs
    mlp_ratio: int = 4
    layer_scale_init: float | None = 1e-5  # as in FasterViT where carriers are propagated; None: no layer scale

    def __post_init__(self) -> None:
        for name in ("depths", "widths", "num_heads"):
            check_whole_numbers(name, getattr(self, name))
        check_same_stages(depths=self.depths, widths=self.widths, num_heads=self.num_heads)
        if self.carrier_stages != ():
            check_whole_numbers("carrier_stages", self.carrier_stages, 0)
        if any(stage >= len(self.depths) for stage in self.carrier_stages):
            raise UsageError(
                f"carrier_stages is {self.carrier_stages}, but there are {len(self.depths)} stages: use 0 to "
                f"{len(self.depths) - 1}."
            )
        for width, heads in zip(self.widths, self.num_heads, strict=True):
            check_heads(width, heads)
        check_integer("carrier_size", self.carrier_size, 0)
        for stage in range(len(self.depths)):
            self.attention(stage)  # checks the values that only attention has

    def attention(self, stage: int) -> HATConfig:
        """The attention of a stage."""
        return HATConfig(
            num_heads=self.num_heads[stage],
            window_size=self.window_size,
            carrier_size=self.carrier_size if stage in self.carrier_stages else 0,
            mlp_ratio=self.mlp_ratio,
            layer_scale_init=self.layer_scale_init,
            propagate=self.propagate,
            relative_bias=self.relative_bias,
            position_embedding=self.position_embedding,
            position_hidden=self.position_hidden,
        )

    @property
    def first_convs(self) -> tuple[str, ...]:
        return ("stem.proj",)

    def without_effect(self) -> dict[str, tuple[bool, str]]:
        has_carriers = bool(self.carrier_size and self.carrier_stages)
        without_effect = {"propagate": (not has_carriers, "no stage has carriers")}
        without_effect["carrier_size"] = (not self.carrier_stages, "carrier_stages is empty")
        computed = self.position_embedding or self.relative_bias == "mlp"
        computed = computed or (has_carriers and self.relative_bias == "table")
        without_effect["position_hidden"] = (not computed, "no bias or embedding is computed by an MLP")
        return without_effect


VARIANTS: dict[str, SwinHATConfig] = {
    "swin_debug_hat": SwinHATConfig(
        depths=(1, 1, 2, 1),
        widths=(4, 8, 16, 32),
        num_heads=(1, 2, 4, 8),
        window_size=3,
        position_hidden=32,
        mlp_ratio=2,
    ),
    "swin_tiny_hat": SwinHATConfig(),
    "swin_small_hat": SwinHATConfig(depths=(2, 2, 18, 2)),
}
