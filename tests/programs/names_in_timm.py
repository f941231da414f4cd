"""Import two packages in the order given, and print how many of our models timm knows: names_in_timm.py NAME,NAME."""

import importlib
import sys

if __name__ == "__main__":
    for name in sys.argv[1].split(","):
        importlib.import_module(name)
    import timm

    print(len(timm.list_models("hybridvit_*")))
