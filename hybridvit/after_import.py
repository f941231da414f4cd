"""Something is done as soon as another package has been imported, and nothing where it never is."""

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


def after_import(name: str, act: Callable[[], object]) -> None:
    """Call `act` each time that the package `name` has been imported; now, if it is already."""
    if name in sys.modules:
        act()
    sys.meta_path.insert(0, _Finder(name, act))


class _Finder:
    """Finds the package as the other finders do, and has `act` follow what executes it."""

    def __init__(self, name: str, act: Callable[[], object]) -> None:
        self._name = name
        self._act = act

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self._name:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next((found for finder in others if (found := finder.find_spec(name, path, target))), None)
        loader = spec.loader if spec is not None else None
        if loader is None:
            return spec
        execute = loader.exec_module

        def execute_and_act(module: ModuleType) -> None:
            execute(module)
            self._act()

        loader.exec_module = execute_and_act  # type: ignore[method-assign]  # a loader is made for each spec
        return spec
