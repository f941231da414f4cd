"""LayerNorm over the channels of a map."""

from jaxtyping import Float
from torch import Tensor, nn


class ChannelLayerNorm(nn.LayerNorm):
    """Each pixel's channels are normalised together; the result lies in memory channels last."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # b h w c, and back

    def plain(self) -> "ChannelLayerNorm":
        """The norm without its affine part."""
        return ChannelLayerNorm(self.normalized_shape, self.eps, elementwise_affine=False)
