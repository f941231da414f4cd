"""The keys of recipes whose models have a head of their own. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from hybridvit.errors import UsageError
from hybridvit.recipe.recipe import ModelOption, Recipe


@dataclass(frozen=True, kw_only=True)
class HeadedRecipe(Recipe):
    """The run"""

    has_head: ClassVar[bool] = True
    trial_options: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """By head: the options with which a dry run tries it, small ones."""

    head: str = ""
    """The head on the backbone; empty: the first of its task."""
    head_options: Mapping[str, ModelOption] = field(default_factory=dict)
    """Options of the head, such as {channels: 128}."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("head", "head_options"):
            if key in self.model_options:
                raise UsageError(f"Recipe key 'model_options' sets {key}, which is a key of its own. Write --{key}.")

    @property
    def creation(self) -> dict[str, Any]:
        return super().creation | {"head": self.head or None, "head_options": self.head_options}

    def trial_settings(self) -> tuple[dict[str, Any], list[str]]:
        settings, changed = super().trial_settings()
        small = self.trial_options.get(self.head, {})
        if small:
            changed.append("changed: the head has few channels")
        return settings | {"head_options": {**self.head_options, **small}}, changed
