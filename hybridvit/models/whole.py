"""What a whole model is, whatever its task and its parts: all that training, saving, export and counting ask of one."""

from abc import abstractmethod
from typing import Any

from jaxtyping import Float
from torch import Tensor

from hybridvit.card import ModelCard
from hybridvit.folding.foldable import Carded


class WholeModel(Carded):
    """A model that answers to images (b, in_chans, h, w); what it answers is its task's to say."""

    num_classes: int
    feature_info: list[dict[str, Any]]  # of the maps of `features`, the finest first: timm's "num_chs", "reduction"
    first_conv: str  # name of the layer that reads the image, or of the block around it in training form
    classifier: tuple[str, ...]  # names of the weights that belong to the classes, and change with their number

    @property
    @abstractmethod
    def present_card(self) -> ModelCard:
        """The card with what has been changed of the model since it was made."""

    @abstractmethod
    def features(self, x: Float[Tensor, "b c h w"]) -> dict[str, Float[Tensor, "b f oh ow"]]:
        """The feature maps of the backbone by name: "stride_4", "stride_8" ...; the finest first."""

    @abstractmethod
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade time for memory in training; see `Backbone.set_grad_checkpointing`."""

    @abstractmethod
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Regular expressions that sort parameter names into layers, for layer-wise decay (timm's format)."""

    @abstractmethod
    def no_weight_decay(self) -> set[str]:
        """Parameters that take no weight decay besides biases and norms."""
