"""The keys that a recipe of segmentation has besides those of all tasks, and the options of its heads; no torch."""

from dataclasses import dataclass

from hybridvit.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class SemanticFPNConfig:
    """Options of Semantic FPN; the defaults are those of FastViT's Table 9."""

    pyramid_channels: int = 256  # of the feature pyramid
    channels: int = 128  # of the convolutions on the way to stride 4
    drop_rate: float = 0.1  # of whole channels, before the last layer

    def __post_init__(self) -> None:
        _check(self, ("pyramid_channels", "channels"))


@dataclass(frozen=True, kw_only=True)
class UPerNetConfig:
    """Options of UPerNet; the defaults are those of FasterViT's Table 4."""

    channels: int = 512
    bins: tuple[int, ...] = (1, 2, 3, 6)  # parts of a side that pyramid pooling makes means of
    drop_rate: float = 0.1  # of whole channels, before the last layers
    auxiliary: bool = True  # a second answer from stride 16, in training alone
    auxiliary_channels: int = 256

    def __post_init__(self) -> None:
        _check(self, ("channels", "auxiliary_channels"))
        if not self.bins or min(self.bins) < 1:
            raise UsageError(f"bins is {self.bins}, but must be whole numbers from 1, such as (1, 2, 3, 6).")


def _check(config: SemanticFPNConfig | UPerNetConfig, sizes: tuple[str, ...]) -> None:
    for name in sizes:
        if getattr(config, name) < 1:
            raise UsageError(f"{name} is {getattr(config, name)}, but a head needs at least one channel.")
    if not 0 <= config.drop_rate < 1:
        raise UsageError(f"drop_rate is {config.drop_rate}, but a probability here is at least 0 and below 1.")
