"""The blocks that heads are made of: a convolution without bias and BatchNorm, with and without ReLU."""

from jaxtyping import Float
from torch import Tensor, nn

from hybridvit.folding.foldable import Foldable
from hybridvit.folding.kernel import Affine, Kernel


class ConvNormReLU(Foldable):
    """Keeps the size of the map; folded, it is a convolution and ReLU."""

    def __init__(self, in_channels: int, channels: int, *, kernel_size: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel_size, padding=kernel_size // 2, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.activation = nn.ReLU()
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out h w"]:
        return self.activation(self.norm(self.conv(x)))

    def folded(self) -> nn.Module:
        return ConvReLU(Kernel.of(self.conv).then(Affine.of(self.norm)).as_conv(self.conv)).eval()


class ConvNorm(Foldable):
    """Keeps the size of the map; folded, it is a convolution."""

    def __init__(self, in_channels: int, channels: int, *, kernel_size: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel_size, padding=kernel_size // 2, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.kaiming_uniform_(self.conv.weight, a=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out h w"]:
        return self.norm(self.conv(x))

    def folded(self) -> nn.Module:
        return Kernel.of(self.conv).then(Affine.of(self.norm)).as_conv(self.conv).eval()


class ConvReLU(nn.Module):
    """`ConvNormReLU` for inference."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv, self.activation = conv, nn.ReLU()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out h w"]:
        return self.activation(self.conv(x))
