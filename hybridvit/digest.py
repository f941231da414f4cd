"""The SHA-256 of a file, of its place, and of tensors."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def short_digest(path: str) -> str:
    """Eight hexadecimal digits that tell a file from others of its name, by where it lies."""
    return hashlib.sha256(os.fsencode(os.path.abspath(path))).hexdigest()[:8]


def digest(tensors: "Mapping[str, Tensor]") -> str:
    """SHA-256 over the names, dtypes, shapes and bytes of contiguous CPU tensors, independent of their order."""
    import torch

    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
