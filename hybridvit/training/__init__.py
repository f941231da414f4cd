"""Training: a recipe in, a run folder out. Reading a recipe imports no torch; `train` imports what it needs."""

from hybridvit.training.recipe import DataConfig, EmaConfig, OptimConfig, Recipe, ScheduleConfig
from hybridvit.training.recipe_file import changed_keys, find_recipe, load_recipe, recipe_names, recipe_text

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
