"""Recipes as files: finding them by name, reading them with overrides, writing them resolved, comparing two."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hybridvit.annotations import as_text, converted
from hybridvit.errors import UsageError, nearest, one_line
from hybridvit.recipe.recipe import ModelOption, Recipe
from hybridvit.task import DEFAULT_TASK, TASKS, find_task

OPTIONS = ("model_options", "head_options")  # keys that hold keys of any name, which a command line sets one by one
RECIPES_LISTED = "`hybridvit train --recipes` lists them"
RECIPES = Path(__file__).parents[1] / "recipes"
RECIPE = "recipe.yaml"  # in the folder of a run, the resolved one
MEANT = {  # by the last part of a word that other tools use
    "batch_size": "data.total_batch",
    "checkpoint": "pretrained",
    "class_weights": "pos_weight",
    "early_stopping": "early_stop",
    "gpus": "devices",
    "img_size": "data.image_size",
    "imgsz": "data.image_size",
    "learning_rate": "optim.lr",
    "num_epochs": "schedule.epochs",
    "num_workers": "data.workers",
    "opt": "optim.name",
    "optimizer": "optim.name",
    "patience": "early_stop",
    "pos_weight": "class_weights",
    "scheduler": "schedule.kind",
    "weights": "pretrained",
}


def recipe_names() -> dict[str, Path]:
    """The recipes that come with the package, by name; a recipe's name is its file's."""
    return {path.stem: path for path in sorted(RECIPES.rglob("*.yaml"))}


def recipe_titles() -> dict[str, str]:
    """The title of each recipe of the package, by name: the first line of its header."""
    titles = {}
    for name, path in recipe_names().items():
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        titles[name] = first.removeprefix("#").strip()
    return titles


def find_recipe(name_or_path: str) -> Path:
    """The file of a recipe, given by name ("digits") or path. Raises UsageError, with the nearest names."""
    named = recipe_names()
    if name_or_path in named:
        return named[name_or_path]
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise UsageError(
            f"There is no recipe file '{name_or_path}'. Check the path, or use one that comes with the package. "
            f"{nearest(path.stem, named, otherwise=RECIPES_LISTED)}."
        )
    raise UsageError(
        f"There is no recipe '{name_or_path}'. {nearest(name_or_path, named, otherwise=RECIPES_LISTED)}; a recipe of "
        "your own is given by its path, such as ./mine.yaml."
    )


def load_recipe(name_or_path: str, overrides: Sequence[str] | Mapping[str, Any] = ()) -> Recipe:
    """Read a recipe and put overrides in.

    Args:
        name_or_path: the name of a recipe of the package, or a YAML file.
        overrides: command-line words (["--data.root", "photos", "--optim.lr=1e-4", "--dry_run"]) or a mapping from
            dotted key to value; the last one wins.

    Raises:
        UsageError: no such recipe, unknown key, value of the wrong type or out of range.
    """
    path = find_recipe(name_or_path)
    content = _read_yaml(path)
    given = list(_given(overrides))
    kind = find_task(str(dict(given).get("task") or content.get("task", DEFAULT_TASK))).recipe
    values = _values_in(content, kind, path)
    for key, text in given:
        group, _, option = key.partition(".")
        is_option = group in OPTIONS and option
        annotation = ModelOption if is_option else _annotation(key, kind)
        if text is None and annotation is not bool:
            raise UsageError(f"Recipe key '{key}' has no value. Write --{key} VALUE.")
        value = converted(
            "true" if text is None else text, annotation, name=f"Recipe key '{key}'", fix=f"Write --{key} VALUE."
        )
        if is_option:
            values[group] = {**values.get(group, {}), option: value}
        else:
            values[key] = value
    if "model" not in values:
        raise UsageError(f"{path} names no model. Add a line such as 'model: fastvit_t8', or pass --model.")
    return _build(values, kind)


def recipe_text(recipe: Recipe) -> str:
    """The recipe as YAML with every key, so that a later change of a default changes nothing."""
    import yaml

    return yaml.safe_dump(as_plain(recipe), sort_keys=False, allow_unicode=True, width=120)


def as_plain(recipe: Recipe) -> dict[str, Any]:
    """The recipe as nested dicts of what YAML and JSON know: tuples become lists."""
    return _plain(dataclasses.asdict(recipe))


def flat(recipe: Recipe) -> dict[str, Any]:
    """The recipe as one dict from dotted key to value."""
    return dict(_leaves(as_plain(recipe)))


def changed_keys(before: Recipe, after: Recipe, *, ignoring: Sequence[str] = ()) -> list[str]:
    """One line "key: before -> after" for each key that differs, besides those in `ignoring`."""
    old, new = flat(before), flat(after)
    keys = [*old, *(key for key in new if key not in old)]
    return [
        f"{key}: {old.get(key, '(absent)')} -> {new.get(key, '(absent)')}"
        for key in keys
        if key not in ignoring and old.get(key) != new.get(key)
    ]


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not text in UTF-8, so it is no recipe. Give a YAML file.") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not valid YAML: {one_line(error)}.") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} is no recipe: it must be YAML with keys such as 'model' and 'data'.")
    return content


def _values_in(content: Mapping[str, Any], kind: type[Recipe], path: Path) -> dict[str, Any]:
    """Dotted key -> value of the recipe in a file. Raises UsageError for an unknown key and a wrong type."""
    groups, leaves = keys_of(kind)
    values = {}
    for key, value in _leaves(content, groups):
        if key in leaves:
            values[key] = converted(value, leaves[key], name=f"Recipe key '{key}'", fix=f"Set it in {path}.")
        elif key not in groups:
            raise UsageError(f"{path}: unknown key '{key}'. {_hint(key, leaves)}")
        elif not isinstance(value, dict):
            raise UsageError(f"{path}: '{key}' is {value!r}, but it is a group of keys: {_in_group(key, leaves)}.")
    return values


def _given(overrides: Sequence[str] | Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    """Each override as its key and the text of its value, None where a command line gives none, in the order given."""
    if isinstance(overrides, Mapping):
        yield from ((key, as_text(value)) for key, value in overrides.items())
        return
    words = list(overrides)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise UsageError(f"'{word}' stands where a recipe key is expected. Write --key value, as in --seed 1.")
        key, equals, value = word[2:].partition("=")
        has_next = words and not words[0].startswith("--")
        yield key, value if equals else words.pop(0) if has_next else None


def _annotation(key: str, kind: type[Recipe]) -> Any:
    """Of the value of a key. Raises UsageError for a group and an unknown key."""
    groups, leaves = keys_of(kind)
    if key in groups:
        raise UsageError(f"Recipe key '{key}' is a group: set the keys in it one by one, {_in_group(key, leaves)}.")
    if key not in leaves:
        raise UsageError(f"Recipe key '{key}' is unknown. {_hint(key, leaves)}")
    return leaves[key]


def _hint(key: str, leaves: Mapping[str, Any]) -> str:
    """What may have been meant by an unknown key; spelling counts only where it is near."""
    word = key.rpartition(".")[2].replace("-", "_")
    if MEANT.get(word) in leaves:
        return f"It is called '{MEANT[word]}' here."
    others = [repr(name) for name in TASKS if key in keys_of(find_task(name).recipe)[1]]
    if others:
        return f"It is for recipes of the task {' and '.join(others)}, and this one's is another. Leave it out."
    same = [leaf for leaf in leaves if leaf.rpartition(".")[2] == word]
    if same:
        return f"Nearest: {', '.join(map(repr, same))}."
    otherwise = "No key is spelled like it; `hybridvit train --help` explains all there are"
    return f"{nearest(key, leaves, otherwise=otherwise)}."


def keys_of(kind: type[Recipe]) -> tuple[dict[str, type], dict[str, Any]]:
    """The groups of a task's recipes (key -> dataclass) and its leaves (dotted key -> annotation)."""
    groups: dict[str, type] = {}
    leaves: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        if isinstance(field.type, type) and dataclasses.is_dataclass(field.type):
            groups[field.name] = field.type
            leaves |= {f"{field.name}.{key.name}": key.type for key in dataclasses.fields(field.type)}
        else:
            leaves[field.name] = field.type
    return groups, leaves


def _in_group(group: str, leaves: Mapping[str, Any]) -> str:
    return ", ".join(key for key in leaves if key.startswith(f"{group}."))


def _leaves(content: Mapping[str, Any], groups: Mapping[str, type] | None = None) -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of two levels; without `groups` every dict is opened, else only those of these keys."""
    for key, value in content.items():
        opened = isinstance(value, Mapping) and (groups is None or key in groups)
        if opened and value:
            yield from ((f"{key}.{inner}", item) for inner, item in value.items())
        else:
            yield str(key), value


def _build(values: Mapping[str, Any], kind: type[Recipe]) -> Recipe:
    """The recipe with these values by dotted key, and defaults for the rest."""
    arguments = {key: value for key, value in values.items() if "." not in key}
    for name, config in keys_of(kind)[0].items():
        inside = {key.removeprefix(f"{name}."): each for key, each in values.items() if key.startswith(f"{name}.")}
        arguments[name] = config(**inside)
    return kind(**arguments)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
