"""Read a recipe of the package, and print whether torch was imported for it: read_a_recipe.py NAME."""

import sys

from hybridvit.training import load_recipe

if __name__ == "__main__":
    load_recipe(sys.argv[1])
    print("torch" in sys.modules)
