"""The parts of a model that are measured, and what each of them is called with."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hybridvit.models.backbone import Backbone
from hybridvit.models.backbone_maps import BackboneMaps
from hybridvit.models.with_head import WithHead

Depth = Literal["stage", "block", "operator"]
HOLD_BLOCKS = ("blocks", "body")  # the names under which stages of all families keep their blocks


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One part of a model; the units of a model do not overlap."""

    stage: str  # "stem", "1" to "4", "pyramid", "head"
    path: str  # its name in the model, as in `named_modules`
    module: nn.Module = field(repr=False)

    @property
    def name(self) -> str:
        """The path without what the stage says already: "body.blocks.0" of "stages.2.body.blocks.0"."""
        _, found, inside = self.path.partition("stages.")
        return inside.partition(".")[2] or f"stage {self.stage}" if found else self.path

    @property
    def kind(self) -> str:
        """The class of the module."""
        return type(self.module).__name__


@dataclass(frozen=True, kw_only=True)
class Call:
    """A unit and what the model gave it."""

    unit: Unit
    inputs: tuple[Any, ...] = field(repr=False)
    options: dict[str, Any] = field(repr=False, default_factory=dict)

    def run(self) -> Any:
        """Call the unit as the model did."""
        return self.unit.module(*self.inputs, **self.options)


def units_of(model: nn.Module, depth: Depth) -> list[Unit]:
    """The stem, the stages or their blocks, and the head; nothing that does nothing.

    Blocks are found by the names that all families give to what holds them, so a new family needs no code here.
    """
    parts: list[tuple[str, str, nn.Module]]
    if isinstance(model, WithHead):
        maps = model.pyramid
        inside = _of_backbone(maps.backbone, "pyramid.backbone.") if isinstance(maps, BackboneMaps) else None
        parts = [*(inside or [("pyramid", "pyramid", maps)]), ("head", "head", model.head)]
    else:
        assert isinstance(model, Backbone)
        parts = [*_of_backbone(model), ("head", "expand", model.expand), ("head", "head", model.head)]
    found = []
    for stage, path, module in parts:
        inner = [(path, module)] if depth == "stage" else _blocks(path, module)
        found += [Unit(stage=stage, path=name, module=each) for name, each in inner]
    return [unit for unit in found if not isinstance(unit.module, nn.Identity)]


def recorded_calls(model: nn.Module, units: Sequence[Unit], images: Tensor) -> list[Call]:
    """What the model gives each unit when it is called with `images`, in the order of execution."""
    calls: list[Call] = []  # of copies: what comes after a unit may change its input in place

    def before(unit: Unit, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        kept = mapped((inputs, options), lambda x: x.clone(memory_format=torch.preserve_format))
        calls.append(Call(unit=unit, inputs=kept[0], options=kept[1]))

    with watched(units, before=before):
        model(images)
    return calls


@contextmanager
def watched(
    units: Sequence[Unit],
    *,
    before: Callable[[Unit, tuple[Any, ...], dict[str, Any]], None] = lambda *_: None,
    after: Callable[[Unit, Any], None] = lambda *_: None,
) -> Iterator[None]:
    """Call `before` with a unit and its arguments, and `after` with it and its result, at every call inside."""
    hooks = []
    for unit in units:

        def entered(_: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any], unit: Unit = unit) -> None:
            before(unit, inputs, options)

        def left(_: nn.Module, __: tuple[Any, ...], result: Any, unit: Unit = unit) -> None:
            after(unit, result)

        hooks.append(unit.module.register_forward_pre_hook(entered, with_kwargs=True))
        hooks.append(unit.module.register_forward_hook(left))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def mapped(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """`value` with every tensor in its tuples, lists and dicts changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {name: mapped(each, change) for name, each in value.items()}
    if type(value) in (tuple, list):
        return type(value)(mapped(each, change) for each in value)
    return value


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors in a value's tuples, lists and dicts."""
    found: list[Tensor] = []
    mapped(value, found.append)
    return found


def _of_backbone(backbone: Backbone, prefix: str = "") -> list[tuple[str, str, nn.Module]]:
    stages = [(str(index + 1), f"{prefix}stages.{index}", stage) for index, stage in enumerate(backbone.stages)]
    return [("stem", f"{prefix}stem", backbone.stem), *stages]


def _blocks(path: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """What lies in a stage, down to its blocks; a module that holds no blocks is one itself."""
    children = dict(module.named_children())
    if type(module) in (nn.Sequential, nn.ModuleList) or any(name in children for name in HOLD_BLOCKS):
        for name, child in children.items():
            yield from _blocks(f"{path}.{name}", child)
    else:
        yield path, module
