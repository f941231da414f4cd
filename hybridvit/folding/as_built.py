"""Whether a layer still is what it was built as: only then may its weights be read instead of calling it."""

from torch import nn

from hybridvit.errors import FoldError


class NotAsBuilt(FoldError):
    """`module` does more, or something else, than its weights say; the text goes on where its name ends."""

    def __init__(self, module: nn.Module, text: str) -> None:
        super().__init__(text)
        self.module = module


def is_as_built(module: nn.Module | None, *kinds: type[nn.Module]) -> bool:
    """Whether a call of `module` does what its class, exactly one of `kinds`, says, and nothing beside.

    Subclasses, wrappers, adapters and parametrised layers are of another class; hooks are something beside.
    """
    return type(module) in kinds and module is not None and not is_intercepted(module)


def is_intercepted(module: nn.Module) -> bool:
    """Whether others have a say when `module` is called: hooks of any kind, or a `forward` set on this one instance."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
    )


def check_as_built(module: nn.Module, *kinds: type[nn.Module]) -> None:
    """Raise NotAsBuilt unless `is_as_built`, with what to do about it; modules inside are for others to check."""
    if type(module) not in kinds:
        raise NotAsBuilt(
            module,
            f"is a {type(module).__name__} of {type(module).__module__}, but exact is only the fold of a plain "
            f"{' or '.join(kind.__name__ for kind in kinds)}. For adapters of PEFT call merge_and_unload() first, for "
            "parametrisations torch.nn.utils.parametrize.remove_parametrizations().",
        )
    check_not_intercepted(module)


def check_unwatched(module: nn.Module) -> None:
    """Raise NotAsBuilt if calls of `module`, or of a module inside, are intercepted."""
    check_not_intercepted(module)
    for part in module.children():
        check_unwatched(part)


def check_not_intercepted(module: nn.Module) -> None:
    """Raise NotAsBuilt if calls of `module` itself are intercepted."""
    if is_intercepted(module):
        raise NotAsBuilt(
            module,
            "has hooks or a forward of its own (pruning, weight_norm and watchers set some), which would be lost. "
            "Remove them first.",
        )


def named(error: NotAsBuilt, root: nn.Module) -> str:
    """The text of the error behind the name that its module has in `root`."""
    name = next((name for name, module in root.named_modules() if module is error.module), "")
    return f"'{name}' in it {error}" if name else f"it {error}"
