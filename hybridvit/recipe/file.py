"""Recipes as files: finding them by name, reading them with overrides, writing them resolved, comparing two."""

import dataclasses
import functools
import itertools
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hybridvit.annotations import in_words
from hybridvit.errors import UsageError, nearest
from hybridvit.recipe.recipe import Recipe
from hybridvit.task import find_task

RECIPES = Path(__file__).parents[1] / "recipes"


def recipe_names() -> dict[str, Path]:
    """The recipes that come with the package, by name; a recipe's name is its file's."""
    return {path.stem: path for path in sorted(RECIPES.rglob("*.yaml"))}


def recipe_titles() -> dict[str, str]:
    """What each recipe of the package is, by name: the first line of its head."""
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
            f"There is no recipe file '{name_or_path}'. Check the path, or use one that comes with the package: "
            f"{nearest(path.stem, named)}."
        )
    raise UsageError(
        f"There is no recipe '{name_or_path}'. The nearest are {nearest(name_or_path, named)}; "
        "a recipe of your own is given by its path, such as ./mine.yaml."
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
    from jsonargparse import ArgumentError

    path = find_recipe(name_or_path)
    content = _read_yaml(path)
    kind = _kind(content, overrides)
    _check_keys(content, path, kind)
    words = _as_words(overrides, kind)
    if "model" not in content and not any(word.startswith("--model=") for word in words):
        raise UsageError(f"{path} names no model. Add a line such as 'model: fastvit_t8', or pass --model.")
    try:
        parsed = _parser(kind).parse_args(["--config", str(path), *words])
    except ArgumentError as error:
        raise UsageError(_explain(str(error), path, words, kind)) from error
    return _build(kind, {key: value for key, value in vars(parsed).items() if key != "config"})


def recipe_parser(prog: str = "hybridvit train", *, kind: type[Recipe] | None = None) -> Any:
    """A jsonargparse.ArgumentParser with every key of a recipe as an option, its field's docstring as its help."""
    import jsonargparse

    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = jsonargparse.ArgumentParser(prog=prog, exit_on_error=False)
    parser.add_argument("--config", action="config", help="Recipe file (YAML).")
    parser.add_class_arguments(kind or find_task("classify").recipe, None)
    return parser


@functools.cache
def _parser(kind: Any) -> Any:
    """Made once: that takes longer than reading a recipe with it."""
    return recipe_parser(kind=kind)


def _kind(content: Mapping[str, Any], overrides: Sequence[str] | Mapping[str, Any]) -> type[Recipe]:
    """The class of the recipe's task. Raises UsageError for an unknown task."""
    task = content.get("task", "classify")
    if isinstance(overrides, Mapping):
        task = overrides.get("task", task)
    else:
        given = dict(itertools.pairwise(overrides))
        given |= dict(word.split("=", 1) for word in overrides if "=" in word)
        task = given.get("--task", task)
    return find_task(str(task)).recipe


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
        raise UsageError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} is no recipe: it must be YAML with keys such as 'model' and 'data'.")
    return content


def _check_keys(content: Mapping[str, Any], path: Path, kind: type[Recipe]) -> None:
    """Refuse unknown keys by name before the parser sees them: its message would not say which are near."""
    groups, leaves = _schema(kind)
    for key, value in _leaves(content, groups):
        if key in groups and not isinstance(value, dict):
            raise UsageError(f"{path}: '{key}' is {value!r}, but it is a group of keys: {_keys_of(key, kind)}.")
        if key not in leaves and key not in groups:
            raise UsageError(f"{path}: unknown key '{key}'. The nearest are {nearest(key, leaves)}.")


def _as_words(overrides: Sequence[str] | Mapping[str, Any], kind: type[Recipe]) -> list[str]:
    """Command-line words of the form --key=value, with every key known."""
    groups, leaves = _schema(kind)
    if isinstance(overrides, Mapping):
        words = [f"--{key}={_yaml_value(value)}" for key, value in overrides.items()]
    else:
        words = list(overrides)
    joined: list[str] = []
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if not word.startswith("--"):
            raise UsageError(f"'{word}' stands where a recipe key is expected. Write --key value, as in --seed 1.")
        key, equals, value = word[2:].partition("=")
        if key not in leaves and key.partition(".")[0] != "model_options":
            if key in groups:
                raise UsageError(
                    f"Recipe key '{key}' is a group: set the keys in it one by one, {_keys_of(key, kind)}."
                )
            raise UsageError(f"Recipe key '{key}' is unknown. The nearest are {nearest(key, leaves)}.")
        if not equals:
            if position < len(words) and not words[position].startswith("--"):
                value = words[position]
                position += 1
            elif leaves.get(key) is bool:
                value = "true"
            else:
                raise UsageError(f"Recipe key '{key}' has no value. Write --{key} VALUE.")
        joined.append(f"--{key}={value}")
    return joined


def _yaml_value(value: Any) -> str:
    import yaml

    return value if isinstance(value, str) else yaml.safe_dump(_plain(value), default_flow_style=True).split("\n...")[0]


def _explain(message: str, path: Path, words: Sequence[str], kind: type[Recipe]) -> str:
    """One paragraph in our words from jsonargparse's lines."""
    key_match = re.search(r'Parser key "([^"]+)"', message)
    value_match = re.search(r"(?:Got value|Given value): (.*)", message)
    if key_match is None:
        return f"{path}: {' '.join(message.split())}."
    key = key_match[1]
    wanted = in_words(_schema(kind)[1].get(key, object))
    value = f"'{value_match[1]}'" if value_match else "a value it cannot take"
    fix = f"Write --{key} VALUE" if any(word.startswith(f"--{key}=") for word in words) else f"Set it in {path}"
    return f"Recipe key '{key}' is {value}, but it must be {wanted}. {fix}."


def _schema(kind: type[Recipe]) -> tuple[dict[str, type], dict[str, Any]]:
    """The groups of a recipe (key -> dataclass) and its leaves (dotted key -> annotation)."""
    groups: dict[str, type] = {}
    leaves: dict[str, Any] = {}
    for name, annotation in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(annotation):
            groups[name] = typing.cast(type, annotation)
            leaves |= {f"{name}.{key}": hint for key, hint in typing.get_type_hints(annotation).items()}
        else:
            leaves[name] = annotation
    return groups, leaves


def _keys_of(group: str, kind: type[Recipe]) -> str:
    return ", ".join(key for key in _schema(kind)[1] if key.startswith(f"{group}."))


def _leaves(content: Mapping[str, Any], groups: Mapping[str, type] | None = None) -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of two levels; only the keys in `groups` are opened, all that are dicts without it."""
    for key, value in content.items():
        opened = isinstance(value, Mapping) and (groups is None or key in groups)
        if opened and value:
            yield from ((f"{key}.{inner}", item) for inner, item in value.items())
        else:
            yield str(key), value


def _build(cls: type, values: Mapping[str, Any]) -> Any:
    """A dataclass of dataclasses from the parser's namespaces."""
    hints = typing.get_type_hints(cls)
    arguments = {}
    for key, value in values.items():
        arguments[key] = _build(hints[key], vars(value)) if dataclasses.is_dataclass(hints[key]) else value
    return cls(**arguments)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
