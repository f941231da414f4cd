"""Random numbers that depend on what is computed, never on which process computes it or when."""

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from any integers and words, e.g. ("order", seed, epoch); other parts give an unrelated seed.

    Hashed, because NumPy's SeedSequence takes (1, 2) and (1, 2, 0) for the same.
    """
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """A generator of its own on the CPU, seeded as by `derive_seed`."""
    return torch.Generator().manual_seed(derive_seed(*parts))


def side_of_step(sides: Sequence[int], seed: int, step: int) -> int | None:
    """The side that the images of an optimizer step have: one of `sides`, by seed and step alone; None without any."""
    return sides[derive_seed("side", seed, step) % len(sides)] if sides else None


def seed_everything(*parts: int | str) -> None:
    """Seed Python's, NumPy's and torch's global generators, on all devices in use, from integers and words."""
    seed = derive_seed(*parts)
    random.seed(seed)
    np.random.seed(seed & 0xFFFF_FFFF)
    # Not torch.manual_seed: for every kind of device that is not in use it keeps the call stack, 2 ms in all.
    torch.random.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)


class _Kept:
    """Whether somebody further up will put the global generators back."""

    by_caller = False


@contextmanager
def generators_kept() -> Iterator[None]:
    """Run a block, then put Python's, NumPy's and torch's CPU generators back to where they were before it.

    Inside another such block this does nothing: saving and restoring takes as long as many an augmentation, and once
    for a whole batch is enough. The generators are global to the process: blocks of two threads would disturb one
    another. Worker processes are fine.
    """
    if _Kept.by_caller:
        yield
        return
    python_state, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    _Kept.by_caller = True
    try:
        yield
    finally:
        _Kept.by_caller = False
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)


@contextmanager
def seeded(*parts: int | str) -> Iterator[None]:
    """Run a block with Python's, NumPy's and torch's CPU generators seeded from `parts`; see `generators_kept`."""
    seed = derive_seed(*parts)
    with generators_kept():
        random.seed(seed)
        np.random.seed(seed & 0xFFFF_FFFF)
        torch.random.default_generator.manual_seed(seed)
        yield
