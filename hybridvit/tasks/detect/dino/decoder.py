"""The decoder: queries that refine their boxes layer by layer (DINO, section 3.5: look forward twice)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hybridvit.tasks.detect.dino.attention import DeformableAttention
from hybridvit.tasks.detect.dino.boxes import logit
from hybridvit.tasks.detect.dino.config import DINOConfig
from hybridvit.tasks.detect.dino.levels import Levels
from hybridvit.tasks.detect.dino.mlp import MLP, BoxHead, ClassHead, xavier_
from hybridvit.tasks.detect.dino.outputs import Predictions
from hybridvit.tasks.detect.dino.position import box_code


class DecoderLayer(nn.Module):
    """Attention among the queries, deformable attention to the encoder's tokens, an MLP, each added and normalised."""

    def __init__(self, config: DINOConfig) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(config.dim, config.num_heads, batch_first=True)
        self.attention_norm = nn.LayerNorm(config.dim)
        self.cross_attention = DeformableAttention(
            config.dim, num_heads=config.num_heads, num_levels=config.num_levels, num_points=config.num_points
        )
        self.cross_attention_norm = nn.LayerNorm(config.dim)
        self.mlp = MLP(config.dim, config.ffn_width, config.dim)
        self.mlp_norm = nn.LayerNorm(config.dim)
        xavier_(self.attention, self.mlp)

    def forward(
        self,
        x: Float[Tensor, "b q c"],
        positions: Float[Tensor, "b q c"],
        references: Float[Tensor, "b q levels 4"],
        memory: Float[Tensor, "b n c"],
        levels: Levels,
        unseen: Bool[Tensor, "q q"] | None,
    ) -> Float[Tensor, "b q c"]:
        placed = x + positions
        mixed, _ = self.attention(placed, placed, x, attn_mask=unseen, need_weights=False)
        x = self.attention_norm(x + mixed)
        x = self.cross_attention_norm(x + self.cross_attention(x + positions, references, memory, levels))
        return self.mlp_norm(x + self.mlp(x))


class Decoder(nn.Module):
    """The layers with their heads. Each layer predicts, and moves the boxes that the next one looks at."""

    def __init__(self, config: DINOConfig) -> None:
        super().__init__()
        self.dim, num_heads = config.dim, 1 if config.shared_heads else config.decoder_depth
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_depth))
        self.norm = nn.LayerNorm(config.dim)
        self.position = MLP(2 * config.dim, config.dim, config.dim)
        self.class_heads = nn.ModuleList(ClassHead(config.dim, config.num_classes) for _ in range(num_heads))
        self.box_heads = nn.ModuleList(BoxHead(config.dim) for _ in range(num_heads))
        xavier_(self.position)

    def forward(
        self,
        x: Float[Tensor, "b q c"],
        references: Float[Tensor, "b q 4"],
        memory: Float[Tensor, "b n c"],
        levels: Levels,
        unseen: Bool[Tensor, "q q"] | None = None,
    ) -> Predictions:
        """The predictions of all layers, for queries with contents `x` that begin at the boxes `references`.

        `unseen` is True where a query (row) must not see another (column). The moved box comes from a layer's output
        as it is, the predicted one from the normalised output. A layer works with a box that gradients do not pass,
        and predicts from the same box with its gradient: so its loss reaches the box head of the layer before, too.
        """
        shares = levels.valid_shares.repeat(1, 1, 2)[:, None]  # b 1 levels 4
        logits, boxes = [], []
        for number, layer in enumerate(self.layers):
            placed = references.detach()[:, :, None] * shares  # b q levels 4
            x = layer(x, self.position(box_code(placed[:, :, 0], self.dim)), placed, memory, levels, unseen)
            class_head, box_head = (heads[number % len(heads)] for heads in (self.class_heads, self.box_heads))
            normed = self.norm(x)
            logits.append(class_head(normed).float())
            boxes.append((box_head(normed) + logit(references)).sigmoid())
            if number + 1 < len(self.layers):
                references = (box_head(x) + logit(references.detach())).sigmoid()
        return Predictions(torch.stack(logits), torch.stack(boxes))
