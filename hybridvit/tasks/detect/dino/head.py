"""The DINO head (Zhang et al., ICLR 2023): maps in, boxes and classes out; in training, denoised copies as well."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hybridvit.errors import UsageError
from hybridvit.tasks.detect.dino.boxes import Objects
from hybridvit.tasks.detect.dino.config import DINOConfig
from hybridvit.tasks.detect.dino.decoder import Decoder
from hybridvit.tasks.detect.dino.denoising import Denoising, Draws
from hybridvit.tasks.detect.dino.encoder import Encoder
from hybridvit.tasks.detect.dino.outputs import DINOOutputs, Predictions
from hybridvit.tasks.detect.dino.proposals import TwoStage
from hybridvit.tasks.detect.dino.pyramid import Pyramid


class DINOHead(nn.Module):
    """See `DINOConfig` for its options."""

    def __init__(self, config: DINOConfig) -> None:
        super().__init__()
        self.config = config
        self.pyramid = Pyramid(config)
        self.encoder = Encoder(config)
        self.two_stage = TwoStage(config)
        self.contents = nn.Parameter(nn.init.xavier_uniform_(torch.empty(config.num_queries, config.dim)))
        self.denoising = Denoising(config)
        self.decoder = Decoder(config)

    def forward(
        self,
        maps: Sequence[Float[Tensor, "b _c _h _w"]],
        padding: Bool[Tensor, "b h w"] | None = None,
        objects: Sequence[Objects] | None = None,
        draws: Draws | None = None,
    ) -> DINOOutputs:
        """The answers to the maps of a batch, finest first.

        Args:
            maps: of the channels of the config, each of half the size of the one before.
            padding: True at the pixels of the batch that are no image; None where there are none.
            objects: what is in each image, to denoise copies of them; needed in training mode.
            draws: the noise of the copies; drawn if None.

        Raises:
            UsageError: for maps with fewer places than there are queries, and in training mode without objects.
        """
        if self.training and objects is None:
            raise UsageError(
                "The DINO head is in training mode, where it denoises copies of the objects, but was given none. Give "
                "those of each image, without rows for an image without objects, or call eval() first."
            )
        tokens = self.pyramid(maps, padding)
        memory = self.encoder(tokens)
        selected = self.two_stage(memory, tokens.levels)
        proposed = Predictions(selected.logits[None].float(), selected.boxes[None])
        contents, references = self.contents.expand(memory.shape[0], -1, -1), selected.boxes.detach()
        layout = None if objects is None else self.denoising.layout(objects)
        if objects is None or layout is None:
            if self.training:  # wrappers that share gradients want one for each parameter
                contents = contents + 0 * self.denoising.labels.weight.sum()
            return DINOOutputs(self.decoder(contents, references, memory, tokens.levels), proposed)
        copies = self.denoising(objects, layout, self.denoising.draw(objects, layout) if draws is None else draws)
        predictions = self.decoder(
            torch.cat((copies.contents, contents), dim=1),
            torch.cat((copies.logits.sigmoid(), references), dim=1),
            memory,
            tokens.levels,
            layout.unseen(self.config.num_queries, memory.device),
        )
        sizes = [layout.num_queries, self.config.num_queries]
        denoising, matching = (
            Predictions(*parts) for parts in zip(*(each.split(sizes, dim=2) for each in predictions), strict=True)
        )
        return DINOOutputs(matching, proposed, denoising, layout)
