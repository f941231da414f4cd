"""Print which families' modules are imported before and after a model is built: families.py MODEL MODULE..."""

import sys

import hybridvit

if __name__ == "__main__":
    model, *modules = sys.argv[1:]
    print(*(name for name in modules if name in sys.modules))
    hybridvit.create_model(model)
    print(*(name for name in modules if name in sys.modules))
