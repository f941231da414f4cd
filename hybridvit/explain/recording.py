"""The attention weights of one pass, by block: what the fused kernels compute and never return."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hybridvit.errors import UsageError
from hybridvit.models.attention import watched_attention
from hybridvit.models.fastvit.blocks import Attention, FoldedAttention
from hybridvit.models.hat.attention import HATBlock, HierarchicalAttention, WindowLayout


@dataclass(kw_only=True)
class BlockRecord:
    """One block of hierarchical attention."""

    name: str
    layout: WindowLayout | None = None
    windows: Float[Tensor, "n heads s s"] | None = None  # of each window, its carriers first
    carriers: Float[Tensor, "b heads c c"] | None = None  # among themselves; None where they do not attend


@dataclass(kw_only=True)
class StageRecord:
    """The blocks of a stage with hierarchical attention, in their order."""

    name: str
    stage: HierarchicalAttention
    blocks: list[BlockRecord]
    map_size: tuple[int, int] = (0, 0)  # height and width of its map, without padding


@dataclass(kw_only=True)
class MapRecord:
    """One block of FastViT, whose pixels all attend to each other."""

    name: str
    map_size: tuple[int, int] = (0, 0)
    weights: Float[Tensor, "b heads t t"] | None = None


@dataclass(kw_only=True)
class Recording:
    """What was recorded, in the order of the modules of the model."""

    stages: list[StageRecord] = field(default_factory=list)
    maps: list[MapRecord] = field(default_factory=list)


@contextmanager
def recorded_attention(model: nn.Module) -> Iterator[Recording]:
    """Record the attention weights of the passes of `model` within; the last pass stays. Nothing is kept outside.

    The outputs are those of the plain attention: equal to the fused kernel's but for rounding.

    Raises:
        UsageError: for a model without attention that can be recorded; and at the end, if nothing came, since what
            ran was a compiled or exported graph.
    """
    recording, owner = Recording(), _Owner()
    with ExitStack() as hooks:

        def before(module: nn.Module, note: Callable[[tuple[Any, ...]], None]) -> None:
            handle = module.register_forward_pre_hook(lambda _, given: note(given))
            hooks.callback(handle.remove)

        for name, module in model.named_modules():
            if isinstance(module, HierarchicalAttention):
                recording.stages.append(_follow_stage(name, module, owner, before))
            elif isinstance(module, Attention | FoldedAttention):
                recording.maps.append(_follow_map(name, module, owner, before))
        if not recording.stages and not recording.maps:
            raise UsageError(
                "The model has no attention to record: its stages are convolutions, or attend in another way. "
                "Leave attention out of --draw, or take a model with attention, such as fastvit_sa12 or fastervit_0."
            )
        hooks.enter_context(watched_attention(owner.told))
        yield recording
        if not owner.has_seen:
            raise UsageError(
                "No attention was recorded: nothing ran, or what ran is a compiled or exported graph, which has no "
                "attention weights. Record the model itself, before torch.compile."
            )


class _Owner:
    """Whose weights come next."""

    def __init__(self) -> None:
        self.keep: Callable[[Tensor], None] | None = None
        self.has_seen = False

    def told(self, weights: Tensor) -> None:
        if self.keep is not None:
            self.keep(weights.detach())
            self.keep, self.has_seen = None, True


_Before = Callable[[nn.Module, Callable[[tuple[Any, ...]], None]], None]


def _follow_stage(name: str, stage: HierarchicalAttention, owner: _Owner, before: _Before) -> StageRecord:
    record = StageRecord(name=name, stage=stage, blocks=[])

    def note_size(given: tuple[Any, ...]) -> None:
        height, width = given[0].shape[-2:]
        record.map_size = (height, width)

    before(stage, note_size)
    for index, block in enumerate(stage.blocks):
        assert isinstance(block, HATBlock)
        record.blocks.append(_follow_block(f"{name}.blocks.{index}", block, owner, before))
    return record


def _follow_block(name: str, block: HATBlock, owner: _Owner, before: _Before) -> BlockRecord:
    record = BlockRecord(name=name)

    def note_layout(given: tuple[Any, ...]) -> None:
        record.layout, record.carriers = given[2], None

    def keep_windows(weights: Tensor) -> None:
        record.windows = weights

    def keep_carriers(weights: Tensor) -> None:
        record.carriers = weights

    before(block, note_layout)
    before(block.attention, lambda _: setattr(owner, "keep", keep_windows))
    if block.carrier_attention is not None:
        before(block.carrier_attention, lambda _: setattr(owner, "keep", keep_carriers))
    return record


def _follow_map(name: str, module: nn.Module, owner: _Owner, before: _Before) -> MapRecord:
    record = MapRecord(name=name)

    def keep(weights: Tensor) -> None:
        record.weights = weights

    def note(given: tuple[Any, ...]) -> None:
        height, width = given[0].shape[-2:]
        record.map_size, owner.keep = (height, width), keep

    before(module, note)
    return record


@torch.no_grad()
def record_attention(model: nn.Module, image: Float[Tensor, "1 c h w"]) -> Recording:
    """The attention weights of one picture. Raises UsageError as `recorded_attention`."""
    with recorded_attention(model) as recording:
        model(image)
    return recording
