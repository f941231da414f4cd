"""An installation without PyTorch and all that trains and exports: it runs exported files (docs/light.md)."""

from importlib.util import find_spec

from hybridvit.errors import UsageError
from hybridvit.machine.packages import IMPORT_NAMES, required_and_optional

PACKAGES = ("docstring-parser", "jsonargparse", "numpy", "pillow", "pyyaml", "rich", "wrapt")
"""What it has of the packages that hybridvit requires; beside them, the runtimes of its files."""
WITHOUT = ("torch", "torchvision", "timm")
_FIX = "this installation has only what runs exported files. Run: pip install hybridvit"


def is_light() -> bool:
    """Whether this is one."""
    return not any(map(find_spec, WITHOUT))


def check_whole(what: str) -> None:
    """Raise UsageError where `what` has to be done by PyTorch, and there is none."""
    if find_spec("torch") is None:
        raise UsageError(f"{what} needs the package torch, and {_FIX}")


def in_words(error: ModuleNotFoundError) -> UsageError | None:
    """What to tell of a package that a light installation lacks; None where something else is missing."""
    if not is_light():
        return None
    module = (error.name or "").partition(".")[0]
    required, _ = required_and_optional()
    names = {IMPORT_NAMES.get(name, name.replace("-", "_")).partition(".")[0]: name for name in required}
    return UsageError(f"This needs the package {names[module]}, and {_FIX}") if module in names else None
