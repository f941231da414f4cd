"""The processes that train together find each other, in this attempt and not in one before."""

import os
import secrets
import sys
import time
from datetime import timedelta

import torch.distributed
from lightning_fabric import Fabric

from hybridvit.errors import ProcessLost, first_line
from hybridvit.training.run.interrupt import Stopped, StopRequest

JOIN_SECONDS = 120.0  # at least, for all processes to start: that takes as long as the slowest disk

_attempt = "hybridvit"


def launch(fabric: Fabric, stop: StopRequest, timeout_seconds: float) -> None:
    """Have Fabric start or join the processes. Raises ProcessLost if not all come within the time."""
    try:
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" and not torch.distributed.is_initialized():
            _join_this_attempt("nccl" if fabric.device.type == "cuda" else "gloo", stop, timeout_seconds)
        fabric.launch()
    except (RuntimeError, TimeoutError) as error:
        if not (isinstance(error, TimeoutError) or is_communication(error)):
            raise
        raise ProcessLost(
            f"The {fabric.world_size} processes of this run did not find each other "
            f"({first_line(error)}). Look at the messages of the others, and start all of them again."
        ) from error


def attempt() -> str:
    """What the keys of this attempt begin with in the store; another one after each restart."""
    return _attempt


def connect(timeout_seconds: float) -> torch.distributed.Store:
    """The store that the launcher or the first process keeps, over a connection of one's own.

    On a shared connection one thread's waiting would stop the others.
    """
    return torch.distributed.TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=False,
        wait_for_workers=False,
        timeout=timedelta(seconds=timeout_seconds),
        use_libuv=sys.platform != "win32",  # where torch may be built without
    )


def is_communication(error: BaseException) -> bool:
    """Whether an error says no more than that another process does not answer.

    Those of NCCL, of the store and of sockets have types. Gloo's have none: up to torch 2.14 its C++ exceptions become
    plain RuntimeErrors, told by the source file of gloo with which their text begins.
    """
    return isinstance(error, torch.distributed.DistError) or _says(error, "gloo")


def is_timeout(error: BaseException) -> bool:
    """Whether a communication error says that the time was up; neither NCCL, the store nor gloo has a type for it."""
    return _says(error, "timed out", "timeout")


def _says(error: BaseException, *words: str) -> bool:
    return any(word in str(error).lower() for word in words)


def _join_this_attempt(backend: str, stop: StopRequest, timeout_seconds: float) -> None:
    """Make the process group under a name that only the processes of this attempt know.

    torchrun keeps one store over its restarts, in which a process that is early would find the addresses that the
    others had in the attempt before, and fail again (pytorch issue 135712). Its count of restarts is that of one
    machine and differs between machines. So the first process draws a name, and each other one answers to it with a
    word of its own until that comes back: what is left of earlier attempts cannot.
    """
    global _attempt
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if world_size == 1:
        return
    store = connect(timeout_seconds)
    own = secrets.token_hex(8)
    welcomed: set[int] = set()

    def all_are_here() -> bool:
        for other in set(range(1, world_size)) - welcomed:
            if store.check([f"{_attempt}/here/{other}"]):
                store.set(f"{_attempt}/welcome/{other}", store.get(f"{_attempt}/here/{other}").decode())
                welcomed.add(other)
        return len(welcomed) == world_size - 1

    def is_welcome() -> bool:
        global _attempt
        if not store.check(["hybridvit/attempt"]):
            return False
        _attempt = store.get("hybridvit/attempt").decode()
        store.set(f"{_attempt}/here/{rank}", own)
        welcome = f"{_attempt}/welcome/{rank}"
        return store.check([welcome]) and store.get(welcome).decode() == own

    if rank == 0:
        _attempt = f"hybridvit/{own}"
        store.set("hybridvit/attempt", _attempt)
    deadline = time.monotonic() + max(timeout_seconds, JOIN_SECONDS)
    while not (all_are_here() if rank == 0 else is_welcome()):
        if stop.signum:
            raise Stopped(stop.signum, "Stopped before the first step.")
        if time.monotonic() > deadline:
            raise TimeoutError("one of them did not come")
        time.sleep(0.05)
    torch.distributed.init_process_group(
        backend,
        store=torch.distributed.PrefixStore(f"{_attempt}/group", store),
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=timeout_seconds),
    )
