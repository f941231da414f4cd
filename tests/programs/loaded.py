"""Import modules, and print which of some others came with them: loaded.py IMPORTED,... ASKED,..."""

import importlib
import sys

if __name__ == "__main__":
    imported, asked = (words.split(",") for words in sys.argv[1:])
    for name in imported:
        importlib.import_module(name)
    print(*(name for name in asked if name in sys.modules))
