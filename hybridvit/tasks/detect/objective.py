"""What a detector is trained by: the sum of the losses of its parts."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from hybridvit.batch import Batch
from hybridvit.data.samples import Samples
from hybridvit.task import Moment, Objective
from hybridvit.tasks.detect.dino.loss import DINOLoss
from hybridvit.tasks.detect.dino.outputs import DINOOutputs
from hybridvit.tasks.detect.heads.dino import objects_of


class DetectObjective(Objective):
    """The losses that an R-CNN head gives, or those of DINO's answers; `terms` has each as it counts."""

    def __init__(self, samples: Samples | None = None) -> None:
        self._samples = samples
        self._of_dino = DINOLoss()

    def loss(self, model: nn.Module, batch: Batch, moment: Moment) -> Tensor:
        """The sum. Raises NonFiniteError, naming the file, where DINO's answers to it are not finite."""
        answers = model(batch.inputs, batch.targets)
        if isinstance(answers, DINOOutputs):
            terms = self._terms_of_dino(answers, batch)
        else:
            terms = answers
        self.terms = {name: term.detach() for name, term in terms.items()}
        return torch.stack(list(terms.values())).sum()

    def _terms_of_dino(self, answers: DINOOutputs, batch: Batch) -> Mapping[str, Tensor]:
        """Classes, L1 and generalised IoU, each summed over all layers, and over those that denoise."""
        losses = self._of_dino(answers, objects_of(batch.targets), self._files(batch))
        terms: dict[str, Tensor] = {}
        for name, part in losses.parts.items():
            kind, _, place = name.partition("_")
            term = f"loss_{kind}_{place.rpartition('_')[0] or place}".replace("_layer", "")
            terms[term] = terms.get(term, 0) + self._of_dino.weights[kind] * part
        return terms

    def _files(self, batch: Batch) -> Sequence[str]:
        if self._samples is None:
            return ()
        return [self._samples.paths[number] for number in batch.samples.tolist()]
