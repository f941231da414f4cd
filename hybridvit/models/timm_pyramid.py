"""Any backbone of timm as a pyramid for our heads. Importing it imports timm."""

from typing import Any

import timm
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hybridvit.card import MIN_SIDE_PX, ModelCard, Preprocessing
from hybridvit.errors import UnknownOptionError, UsageError, one_line
from hybridvit.models.pyramid import Pyramid

STRIDES = (4, 8, 16, 32)
ANY_SIZE: tuple[dict[str, Any], ...] = ({"strict_img_size": False}, {"dynamic_img_size": True}, {})
"""Options with which timm's models of fixed positions take images of any size; the first that a model knows is used."""


class TimmPyramid(Pyramid):
    """The maps of stride 4, 8, 16 and 32 of a timm model, in timm's own layers, which no fold of ours touches.

    Images are padded with zeros, to the right and below, to sides that 32 divides: some of timm's models need that.
    `name` may have a tag, which says whose preprocessing goes on the card. Raises UsageError for a model without these
    maps, UnknownOptionError for an option that it does not have.
    """

    has_released_form = False
    first_conv = ""

    def __init__(self, name: str, *, in_chans: int = 3, **options: Any) -> None:
        super().__init__()
        self.maps = timm_features(name, in_chans=in_chans, **options)
        info: Any = self.maps.feature_info
        self.channels = list(info.channels())
        self.strides, self.in_chans = list(STRIDES), in_chans
        self.feature_info = [
            {"num_chs": channels, "reduction": stride}
            for channels, stride in zip(self.channels, self.strides, strict=True)
        ]
        self.names = [f"stride_{stride}" for stride in self.strides]
        given = {**options, "in_chans": in_chans} if in_chans != 3 else options
        self.card = ModelCard(architecture=name, options=given, preprocessing=preprocessing_of(name, in_chans))
        self._is_channels_last = str(getattr(self.maps, "output_fmt", "NCHW")).endswith("NHWC")

    def forward(self, x: Float[Tensor, "b c h w"]) -> list[Tensor]:
        _, channels, height, width = x.shape
        if channels != self.in_chans or min(height, width) < MIN_SIDE_PX:
            raise UsageError(
                f"Input has {channels} channels of {height}x{width} pixels, but this {self.card.architecture} takes "
                f"{self.in_chans} channels of at least {MIN_SIDE_PX} pixels a side."
            )
        maps = self.maps(F.pad(x, (0, -width % STRIDES[-1], 0, -height % STRIDES[-1])))
        if self._is_channels_last:
            maps = [fmap.permute(0, 3, 1, 2) for fmap in maps]  # b h w c -> b c h w
        return [
            fmap[..., : -(-height // stride), : -(-width // stride)].contiguous()
            for fmap, stride in zip(maps, STRIDES, strict=True)
        ]

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.maps.set_grad_checkpointing(enable)  # type: ignore[operator]

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """By the top-level modules in their order: timm's own patterns are for the names of whole models."""
        children = [name for name, _ in self.maps.named_children()]
        blocks = [(rf"^maps\.{name}\.", (number,)) for number, name in enumerate(children[1:])]
        return {"stem": rf"^maps\.{children[0]}\.", "blocks": blocks}

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        return set()


def is_timm(name: str) -> bool:
    """Whether timm has a model of that name, with or without a tag."""
    return timm.is_model(name)


def timm_features(name: str, **options: Any) -> nn.Module:
    """timm's feature extractor with these four maps, randomly initialised unless `pretrained` is among the options."""
    model = _made(name, options)
    info: Any = model.feature_info
    reductions, indices = info.reduction(), info.out_indices
    if tuple(reductions) == STRIDES:
        return model
    last = dict(zip(reductions, indices, strict=True))  # of several of one stride the deepest
    if not set(STRIDES) <= last.keys():
        raise UsageError(
            f"{name} gives maps of stride {', '.join(map(str, sorted(set(reductions))))}, but heads read strides 4, 8, "
            "16 and 32. Choose a backbone with stages, such as resnet50, convnext_tiny or swin_tiny_patch4_window7_224."
        )
    return _made(name, options | {"out_indices": tuple(last[stride] for stride in STRIDES)})


def _made(name: str, options: dict[str, Any]) -> nn.Module:
    for extra in ANY_SIZE:
        try:
            return timm.create_model(name, features_only=True, **(extra | options))
        except TypeError as error:
            if not any(option in str(error) for option in extra):
                raise UnknownOptionError(
                    f"timm's {name} cannot be made with the options {', '.join(options)}: {one_line(error)}. Correct "
                    "them."
                ) from error
    raise AssertionError("the last of ANY_SIZE is empty")


def preprocessing_of(name: str, in_chans: int) -> Preprocessing:
    """How images are prepared for the published weights of a timm model, as far as timm says."""
    config = timm.get_pretrained_cfg(name)
    if config is None:
        return Preprocessing().for_channels(in_chans)
    _, height, width = config.input_size
    own = Preprocessing(mean=tuple(config.mean), std=tuple(config.std), image_size=(height, width))
    return own.for_channels(in_chans)
