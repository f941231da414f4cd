"""Run code as the kernel of a notebook does: cell.py CODE.

Its main module has no file, a loop runs already, and what is printed goes to no file of the system.
"""

import asyncio
import io
import sys


class Shown(io.TextIOBase):
    """Takes text as a notebook's output does."""

    def write(self, text: str) -> int:
        """Forget it."""
        return len(text)


async def kernel(code: str) -> None:
    exec(compile(code, "<cell>", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    del sys.modules["__main__"].__file__
    errors, sys.stdout, sys.stderr = sys.stderr, Shown(), Shown()
    try:
        asyncio.run(kernel(sys.argv[1]))
    except BaseException:
        sys.stderr = errors
        raise
