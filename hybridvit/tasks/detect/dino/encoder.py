"""The encoder: every token of every level attends to a few places on all levels."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hybridvit.tasks.detect.dino.attention import DeformableAttention
from hybridvit.tasks.detect.dino.config import DINOConfig
from hybridvit.tasks.detect.dino.levels import Levels
from hybridvit.tasks.detect.dino.mlp import MLP, xavier_
from hybridvit.tasks.detect.dino.pyramid import Tokens


class EncoderLayer(nn.Module):
    """Deformable attention and an MLP, each added and normalised. Positions go into the queries alone."""

    def __init__(self, config: DINOConfig) -> None:
        super().__init__()
        self.attention = DeformableAttention(
            config.dim, num_heads=config.num_heads, num_levels=config.num_levels, num_points=config.num_points
        )
        self.attention_norm = nn.LayerNorm(config.dim)
        self.mlp = MLP(config.dim, config.ffn_width, config.dim)
        self.mlp_norm = nn.LayerNorm(config.dim)
        xavier_(self.mlp)

    def forward(
        self,
        x: Float[Tensor, "b n c"],
        positions: Float[Tensor, "#b n c"],
        references: Float[Tensor, "#b n levels 2"],
        levels: Levels,
    ) -> Float[Tensor, "b n c"]:
        x = self.attention_norm(x + self.attention(x + positions, references, x, levels))
        return self.mlp_norm(x + self.mlp(x))


class Encoder(nn.Module):
    """The layers, one after another."""

    def __init__(self, config: DINOConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_depth))

    def forward(self, tokens: Tokens) -> Float[Tensor, "b n c"]:
        x, references = tokens.values, encoder_references(tokens.levels)
        for layer in self.layers:
            x = layer(x, tokens.positions, references, tokens.levels)
        return x


def encoder_references(levels: Levels) -> Float[Tensor, "b n levels 2"]:
    """Where each token lies on each level, in shares of the map with its padding."""
    centres = torch.cat(levels.centres(), dim=1)
    return centres[:, :, None] * levels.valid_shares[:, None]
