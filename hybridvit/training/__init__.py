"""Training: a recipe in, a run folder out. Reading a recipe imports no torch; `train` imports what it needs."""

from hybridvit.recipe.file import changed_keys, find_recipe, load_recipe, recipe_names, recipe_text
from hybridvit.recipe.groups import DataConfig, EmaConfig, OptimConfig, ScheduleConfig
from hybridvit.recipe.recipe import Recipe

__all__ = [
    "DataConfig",
    "EmaConfig",
    "OptimConfig",
    "Recipe",
    "ScheduleConfig",
    "changed_keys",
    "find_recipe",
    "load_recipe",
    "recipe_names",
    "recipe_text",
]
