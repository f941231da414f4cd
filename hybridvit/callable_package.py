"""A package that is a function too, where one name is best for both: `hybridvit.export`, `hybridvit.evaluate`."""

import inspect
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any


class CallablePackage(ModuleType):
    """Calling the package `hybridvit.NAME` calls `hybridvit.api.NAME`; all else is as in any package.

    A package takes this class by `sys.modules[__name__].__class__ = CallablePackage`. A function of that name beside
    it would be lost as soon as something imports the package, and would hide what is inside.
    """

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._function()(*args, **options)

    @property
    def __signature__(self) -> inspect.Signature:
        """That of the function, for editors and `help`."""
        return inspect.signature(self._function())

    def _function(self) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(import_module("hybridvit.api"), self.__name__.rpartition(".")[2])
        return function
