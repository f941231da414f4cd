"""Every key of a recipe with its type, default and meaning: for `train --help` and the reference of the keys."""

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any

from hybridvit.cli.help import field_texts
from hybridvit.recipe.recipe import Recipe
from hybridvit.task import DEFAULT_TASK, TASKS, find_task


@dataclass(frozen=True, kw_only=True)
class RecipeKey:
    """One key, as YAML and the command line write it."""

    name: str  # dotted
    annotation: Any
    default: Any  # None where there is none, or where it is made anew for each recipe
    text: str  # what the docstring of its field says, as argparse takes it


@dataclass(frozen=True, kw_only=True)
class KeySection:
    """Keys that belong together."""

    title: str
    keys: tuple[RecipeKey, ...]


def usual_sections() -> list[KeySection]:
    """The keys of the default task's recipes, a section for each group."""
    usual = find_task(DEFAULT_TASK).recipe
    titles = field_texts(usual)
    return [
        KeySection(title=titles[prefix[:-1]] if prefix else "The run", keys=tuple(_keys(config, prefix)))
        for prefix, config in _groups(usual).items()
    ]


def other_sections() -> list[KeySection]:
    """The keys that the recipes of each other task have besides, or have with another type."""
    known = _groups(find_task(DEFAULT_TASK).recipe)
    return [
        KeySection(
            title=f"In recipes of the task {name}",
            keys=tuple(
                key
                for prefix, config in _groups(find_task(name).recipe).items()
                for key in _keys(config, prefix, known=known.get(prefix))
            ),
        )
        for name in TASKS
        if name != DEFAULT_TASK
    ]


def _groups(kind: type[Recipe]) -> dict[str, Any]:
    """What has the keys of a recipe, by the beginning of their names."""
    return {"": kind} | {f"{field.name}.": field.type for field in fields(kind) if is_dataclass(field.type)}


def _keys(config: Any, prefix: str, known: Any = None) -> Iterator[RecipeKey]:
    """The keys of a group, without those that are the same in the group `known`."""
    texts = field_texts(config)
    others = {field.name: field.type for field in fields(known)} if known is not None else {}
    for field in fields(config):
        if is_dataclass(field.type) or others.get(field.name) == field.type:
            continue
        yield RecipeKey(
            name=f"{prefix}{field.name}",
            annotation=field.type,
            default=None if field.default is MISSING else field.default,
            text=field.metadata.get("help", texts[field.name]),
        )
