"""What gives the feature maps that a head reads: a backbone of this package without its own head, or one of timm."""

import re
from abc import abstractmethod
from typing import Any

from jaxtyping import Float
from torch import Tensor

from hybridvit.folding.foldable import Carded, Sized


class Pyramid(Carded):
    """Feature maps of growing stride; `channels`, `strides` and `names` describe them, the finest first."""

    channels: list[int]
    strides: list[int]  # image pixels per pixel of the map; a map has ceil(side / stride) pixels a side
    names: list[str]  # as `Backbone.features` calls the maps
    feature_info: list[dict[str, Any]]  # timm's "num_chs" and "reduction" of each map
    first_conv: str  # name of the layer that reads the image; "" where it is not known

    @abstractmethod
    def forward(self, x: Float[Tensor, "b c h w"]) -> list[Tensor]:
        """The maps (b, f, oh, ow), the finest first.

        Raises:
            UsageError: for an input of the wrong rank, channels or size.
        """

    def features(self, x: Float[Tensor, "b c h w"]) -> dict[str, Tensor]:
        """The maps by name, as those of a whole model."""
        return dict(zip(self.names, self(x), strict=True))

    @abstractmethod
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """See `Backbone.set_grad_checkpointing`."""

    @abstractmethod
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Regular expressions that sort the names of its parameters into layers, in timm's format."""

    @abstractmethod
    def no_weight_decay(self) -> set[str]:
        """Its parameters that take no weight decay besides biases and norms."""

    def size_dependent(self) -> tuple[Sized, ...]:
        """None of its own: a backbone inside, a model as well, has them."""
        return ()


def below(prefix: str, pattern: str) -> str:
    """A pattern of names that begins with ^, for the same names behind a prefix."""
    return f"^{re.escape(prefix)}{pattern.removeprefix('^')}"
