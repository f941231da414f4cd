"""What every family's model offers: timm's model interface, the named pyramid, and the card."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hybridvit.card import MIN_SIDE_PX, ModelCard, Preprocessing
from hybridvit.errors import UsageError, plural
from hybridvit.folding.batch_norm import check_batch, statistics_at_rest, uses_batch_statistics
from hybridvit.folding.foldable import Sized, SizeDependent
from hybridvit.models.checks import check_integer
from hybridvit.models.head import ClassifierHead, GlobalPool
from hybridvit.models.whole import WholeModel
from hybridvit.tracing import forget_shape, is_traced


class Backbone(WholeModel):
    """A stem, stages that halve the map, an optional layer after them, and a classifier head.

    Input (b, in_chans, h, w) with h and w >= 32 in steps of one pixel; a stage of stride s gives ceil(h / s).

    Args:
        config: the architecture, of the family's own class; its `VARIANTS` have the named ones.
        card: the record that travels with the model.
        num_classes: 0 for the pooled vector.
        in_chans: channels of the image.
        global_pool: "avg", "max", or "" for no pooling, with `num_classes=0`.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block; grows linearly from 0 over the blocks.

    Raises:
        UsageError: for an unknown pooling, a negative size, or a rate outside 0 to 1.
    """

    stem: nn.Module
    stages: nn.Sequential
    expand: nn.Module
    head: ClassifierHead
    num_features: int  # channels of forward_features
    head_hidden_size: int  # channels of the pre-logits
    classifier = ("head.fc.weight", "head.fc.bias")
    layers_of_stage: tuple[str, str]  # regular expressions behind `stages.N.`: what opens a stage; its numbered blocks
    last_layer: str  # what lies between the stages and the classifier

    def __init__(
        self,
        config: Any,
        *,
        card: ModelCard,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: GlobalPool = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        for name, size, minimum in (("num_classes", num_classes, 0), ("in_chans", in_chans, 1)):
            check_integer(name, size, minimum)
        for name, rate in (("drop_rate", drop_rate), ("drop_path_rate", drop_path_rate)):
            if not isinstance(rate, int | float) or not 0 <= rate < 1:
                raise UsageError(f"{name} is {rate!r}, but a probability here is at least 0 and below 1.")
        self.card, self.in_chans, self.num_classes = card, in_chans, num_classes
        self._built_classes = num_classes  # those of the variant, where the card's options name none
        self.first_convs: tuple[str, ...] = config.first_convs  # names of what reads the image, in training form
        self.make_body(config, stochastic_depth(config.depths, drop_path_rate))
        self.head_hidden_size = self.num_features
        self.head = self.make_head(num_classes, global_pool=global_pool, drop_rate=drop_rate)
        self.feature_info = pyramid_info(config.widths)
        self.apply(self.initialise)

    @abstractmethod
    def make_body(self, config: Any, drop_path_rates: list[list[float]]) -> None:
        """Register `stem`, `stages` and `expand`, in order of execution; set `num_features` and `first_conv`."""

    @abstractmethod
    def make_head(self, num_classes: int, *, global_pool: GlobalPool, drop_rate: float) -> ClassifierHead:
        """The head of this family."""

    @staticmethod
    @abstractmethod
    def initialise(module: nn.Module) -> None:
        """Draw the weights of one module of the model, where they are not torch's defaults."""

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Regular expressions that sort parameter names into layers, for layer-wise decay (timm's format)."""
        stage, (opening, blocks) = r"^stages\.(\d+)", self.layers_of_stage
        fine = [(rf"{stage}\.{opening}", (0,)), (rf"{stage}\.{blocks}", None)]
        return {
            "stem": r"^stem",
            "blocks": [*([(stage, None)] if coarse else fine), (rf"^{self.last_layer}", (99999,))],
        }

    def forward_features(self, x: Num[Tensor, "b c h w"]) -> Float[Tensor, "b f oh ow"]:
        """The unpooled map that the head reads, of the last stage's stride: 32, or 64 behind five stages.

        Raises:
            UsageError: for an input of the wrong rank, channels or size.
        """
        self.check_input(x)
        return self.expand(self._run_stages(self.stem(x)))

    def forward_head(self, x: Float[Tensor, "b f h w"], pre_logits: bool = False) -> Tensor:
        """Logits (b, num_classes) of a map from `forward_features`; its pooled vector if `pre_logits`."""
        return self.head(x, pre_logits)

    def forward(self, x: Num[Tensor, "b c h w"]) -> Tensor:
        """Logits (b, num_classes). Integer pixels are for models with their preprocessing folded in.

        Raises:
            UsageError: for an input of the wrong rank, channels or size.
        """
        return self.forward_head(self.forward_features(x))

    def features(self, x: Float[Tensor, "b c h w"]) -> dict[str, Float[Tensor, "b f oh ow"]]:
        """The pyramid by name: {"stride_4": ..., "stride_8": ..., "stride_16": ..., "stride_32": ...}, one per stage.

        Raises:
            UsageError: for an input of the wrong rank, channels or size.
        """
        maps = self.forward_intermediates(x, intermediates_only=True)
        return {f"stride_{info['reduction']}": fmap for info, fmap in zip(self.feature_info, maps, strict=True)}

    def forward_intermediates(
        self,
        x: Float[Tensor, "b c h w"],
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """The outputs of the stages `indices` (an int: the last so many; None: all), and the final map (timm's method).

        Returns the list of maps if `intermediates_only`, else (final map, list of maps). With `stop_early` stages that
        no index asks for are not run, and the final map is that of the last one that was. `norm` is accepted for timm's
        sake: these families have no norm between the stages and the head to apply.

        Raises:
            UsageError: for an index outside the stages or another output format.
        """
        if output_fmt != "NCHW":
            raise UsageError(f"output_fmt is '{output_fmt}', but feature maps here are 'NCHW' only.")
        wanted = resolve_indices(indices, len(self.feature_info))
        self.check_input(x)
        x, maps = self.stem(x), []
        stages = self.stages[: max(wanted) + 1] if stop_early else self.stages
        for index, stage in enumerate(stages):
            x = self._checkpointed(stage, x)
            if index in wanted:
                maps.append(x)
        if intermediates_only:
            return maps
        return (self.expand(x) if len(stages) == len(self.stages) else x), maps

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove, in place, the stages after the last of `indices`, and the head (timm's method).

        The head stays only with `prune_head=False` and all stages kept: it reads the last one.
        """
        wanted = resolve_indices(indices, len(self.feature_info))
        kept = max(wanted) + 1
        if prune_head or kept < len(self.stages):
            self.expand = self.head.norm = nn.Identity()
            self.num_features = self.feature_info[kept - 1]["num_chs"]
            self.head_hidden_size = self.head.in_features = self.num_features
            self.reset_classifier(0, "")
        self.stages, self.feature_info = self.stages[:kept], self.feature_info[:kept]
        return wanted

    def get_classifier(self) -> nn.Module:
        """The last linear layer; nn.Identity with 0 classes."""
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: GlobalPool | None = None) -> None:
        """A freshly initialised classifier; with 0 classes the model gives the pooled vector, or the map for "".

        The pooling stays if none is given; a model without one gets the average with its classes.

        Raises:
            UsageError: for an unknown pooling, or for classes and "".
        """
        self.head.reset(num_classes, global_pool)
        self.head.to(next(self.stem.parameters()))
        self.num_classes = num_classes

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade time for memory in training: keep only each stage's input and compute the rest again backward.

        Outputs, gradients and running statistics are the same with it: the second pass leaves the statistics alone.
        """
        self.grad_checkpointing = enable

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Parameters that take no weight decay besides biases and norms: none in these families."""
        return set()

    @property
    def present_card(self) -> ModelCard:
        """The card with the classifier that the model has now; `reset_classifier` may have changed it.

        Class names that are more or fewer than the classes are those of an earlier classifier, and left out.
        """
        now = {"num_classes": self.num_classes, "global_pool": self.head.pool_type}
        defaults = {"num_classes": self._built_classes, "global_pool": "avg"}
        changed = {name: value for name, value in now.items() if self.card.options.get(name, defaults[name]) != value}
        class_names = self.card.class_names if len(self.card.class_names) == self.num_classes else ()
        return replace(self.card, options=self.card.options | changed, class_names=class_names)

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """What timm's functions ask of a model (`save_for_hf`, `resolve_model_data_config`): its own, else the card."""
        if self._pretrained_cfg:
            return self._pretrained_cfg
        return {
            "architecture": f"hybridvit_{self.card.architecture}",
            "license": self.card.licence or None,
            **timm_cfg(self.card.preprocessing, self.in_chans, self.num_classes, self.first_convs),
        }

    @pretrained_cfg.setter
    def pretrained_cfg(self, cfg: dict[str, Any]) -> None:
        self._pretrained_cfg = cfg

    def size_dependent(self) -> Iterator[Sized]:
        """The parts of the stages whose positions depend on the size of the image."""
        for index, (stage, info) in enumerate(zip(self.stages, self.feature_info, strict=True)):
            for name, part in stage.named_modules(prefix=f"stages.{index}"):
                if isinstance(part, SizeDependent) and part.has_constants:
                    yield Sized(name=name, part=part, stride=info["reduction"])

    def check_input(self, x: Tensor) -> None:
        """Refuse what the model cannot take. The graph of a symbolic trace refuses nothing by itself.

        Raises:
            UsageError: for an input of the wrong rank, channels or size; in training also for a batch of one image
                so small that a BatchNorm would see one value.
        """
        if is_traced(x):
            forget_shape(x)
            return  # it has no values yet
        name = self.card.architecture
        if x.ndim != 4:
            raise UsageError(
                f"Input has shape {tuple(x.shape)}, but {name} takes a batch (images, {self.in_chans}, height, width). "
                "Add the batch dimension with x[None]."
            )
        channels, height, width = x.shape[1:]
        if channels != self.in_chans:
            raise UsageError(
                f"Input has {plural(channels, 'channel')}, but {name} was built for {self.in_chans}. "
                f"Convert the images, or build it with in_chans={channels}."
            )
        if height < MIN_SIDE_PX or width < MIN_SIDE_PX:
            raise UsageError(
                f"Image is {height}x{width} pixels, but {name} needs both sides >= {MIN_SIDE_PX}. Resize or pad it."
            )
        fixed = self.card.fixed_size
        if fixed is not None and (height, width) != fixed:
            raise UsageError(
                f"Image is {height}x{width} pixels, but the positions of this {name} are constants for "
                f"{fixed[0]}x{fixed[1]}. Resize it, or fold the model without image_size for images of any size."
            )
        if self.training and len(x) == 1 and uses_batch_statistics(self):
            check_batch(len(x), (height, width), self.feature_info[-1]["reduction"])

    def _run_stages(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = self._checkpointed(stage, x)
        return x

    def _checkpointed(self, stage: nn.Module, x: Tensor) -> Tensor:
        if not (self.grad_checkpointing and self.training):
            return stage(x)
        if torch.compiler.is_compiling():  # a compiler computes values again, and never a write
            return checkpoint(stage, x, use_reentrant=False)
        return checkpoint(stage, x, use_reentrant=False, context_fn=lambda: (nullcontext(), statistics_at_rest(stage)))

    has_released_form = False
    grad_checkpointing = False
    _pretrained_cfg: dict[str, Any] | None = None


def timm_cfg(
    preprocessing: Preprocessing, in_chans: int, num_classes: int, first_convs: tuple[str, ...]
) -> dict[str, Any]:
    """What timm's PretrainedCfg says of a model besides its weights."""
    return {
        "input_size": (in_chans, *preprocessing.image_size),
        "crop_pct": preprocessing.crop_fraction,
        "crop_mode": preprocessing.crop_mode,
        "interpolation": preprocessing.interpolation,
        "mean": preprocessing.mean,
        "std": preprocessing.std,
        "num_classes": num_classes,
        "first_conv": first_convs,
        "classifier": "head.fc",
    }


def stochastic_depth(depths: Sequence[int], rate: float) -> list[list[float]]:
    """The drop path rates of the blocks of each stage: from 0 in the first block linearly to `rate` in the last."""
    blocks = sum(depths)
    rates = iter([rate * index / max(blocks - 1, 1) for index in range(blocks)])
    return [[next(rates) for _ in range(depth)] for depth in depths]


def pyramid_info(widths: Sequence[int]) -> list[dict[str, Any]]:
    """timm's `feature_info` of stages with strides 4, 8, 16 ..."""
    return [
        {"num_chs": width, "reduction": 4 * 2**stage, "module": f"stages.{stage}"} for stage, width in enumerate(widths)
    ]


def resolve_indices(indices: int | Sequence[int] | None, count: int) -> list[int]:
    """Stage numbers, sorted, from timm's ways of naming them: None is all, an int the last so many, -1 the last.

    Raises:
        UsageError: for a number outside the stages.
    """
    if indices is None:
        return list(range(count))
    asked = list(range(count - indices, count)) if isinstance(indices, int) else list(indices)
    if not asked or any(not isinstance(index, int) or not -count <= index < count for index in asked):
        raise UsageError(f"Stage indices are {indices}, but there are {count} stages: use 0 to {count - 1}.")
    return sorted(index % count for index in asked)


def initialise_weight(layer: nn.Conv2d | nn.Linear) -> None:
    """Truncated normal of 0.02, and no bias."""
    nn.init.trunc_normal_(layer.weight, std=0.02)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
