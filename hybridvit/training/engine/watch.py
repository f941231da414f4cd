"""Processes that train together: each notices when another one, or the launcher of all, is gone or stuck, and ends.

A collective tells little of why it failed, and a process that hangs tells nothing. So a thread of each process says
every second, in the store that the process group was made with, how far the process is, and reads what the others say.
"""

import contextlib
import faulthandler
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import torch.distributed
from lightning_fabric import Fabric

from hybridvit.errors import ProcessLost, first_line
from hybridvit.training.engine.launch import attempt, connect, is_communication, is_timeout
from hybridvit.training.run.interrupt import Stopped, StopRequest

BEAT_SECONDS = 1.0
GRACE_SECONDS = 10.0  # for a process to end by itself once it is known that another one will not go on
GO_ON = (
    "Nothing before the last checkpoint is lost: go on with --resume, or let torchrun do it (torchrun --max-restarts 3 "
    "-m hybridvit train ... --resume auto)."
)


@dataclass(kw_only=True)
class Beat:
    """What a process says of itself."""

    number: int = 0
    count: int = 0  # places reached so far; the same for all processes that are at the same place
    place: str = "the start"
    pid: int
    host: str


class PeerWatch:
    """While entered, no process of the run waits for another, or trains without its launcher, for longer than allowed.

    - A failed collective becomes ProcessLost, which names the process that is gone, stuck, or ended with an error.
    - A process that a peer waited for in vain writes the stacks of its threads to stderr and to
      `folder`/stacks-RANK.txt, and ends.
    - A process whose launcher (torchrun, or the first process) is gone acts as on SIGTERM: saves, and stops.

    Does nothing where there is one process without a launcher.
    """

    _made = 0  # in this process: what was said in an earlier run is not about this one

    def __init__(self, fabric: Fabric, stop: StopRequest, timeout_seconds: float) -> None:
        self.folder: Path | None = None
        PeerWatch._made += 1
        self._prefix = f"{attempt()}/watch-{PeerWatch._made}/"
        self._rank, self._world_size = fabric.global_rank, fabric.world_size
        self._stop, self._timeout = stop, timeout_seconds
        self._beat = Beat(pid=os.getpid(), host=socket.gethostname())
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self._store: torch.distributed.Store | None = None
        has_launcher = "TORCHELASTIC_RUN_ID" in os.environ or int(os.environ.get("LOCAL_RANK", 0)) > 0
        self._launcher = os.getppid() if has_launcher else 0

    def reached(self, place: str) -> None:
        """To be called by every process at the same places, in words that fit "it is at ...". Costs nothing."""
        self._beat.count += 1
        self._beat.place = place

    def __enter__(self) -> Self:
        if self._world_size > 1:
            self._store = connect(GRACE_SECONDS)
        if self._world_size > 1 or self._launcher:
            self._thread = threading.Thread(target=self._watch, name="peer-watch", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if self._world_size > 1 and error is not None and not isinstance(error, Stopped):
                if isinstance(error, RuntimeError) and is_communication(error):
                    raise self._explain(error) from error
                self._tell("ended", f"{type(error).__name__}: {first_line(error)}")
        finally:
            self._done.set()
            if self._thread is not None:
                self._thread.join()

    def _watch(self) -> None:
        try:
            orphaned_at = 0.0
            while not self._done.wait(BEAT_SECONDS):
                # If something holds Python's lock for ever, this thread is stopped too; the system's timer is not.
                faulthandler.dump_traceback_later(self._timeout + 4 * GRACE_SECONDS, exit=True, file=2)
                self._publish()
                trouble = self._trouble()
                if trouble == "ended" and not self._done.wait(GRACE_SECONDS):
                    _write_error(f"Error: {self._blame('it does not close its connections', waited=False)}\n")
                    os._exit(ProcessLost.exit_code)
                if trouble == "stuck" and not self._done.wait(BEAT_SECONDS):
                    self._end_with_stacks("another process waited for it in vain", ProcessLost.exit_code)
                if self._launcher and os.getppid() != self._launcher:
                    if not orphaned_at:
                        orphaned_at = time.monotonic()
                        self._stop.ask(signal.SIGTERM)
                        _write_error(f"Process {self._rank}: its launcher is gone; saving and stopping.\n")
                    if time.monotonic() - orphaned_at > self._timeout + GRACE_SECONDS:
                        self._end_with_stacks("its launcher is gone, and it did not come to a point to save", 143)
        finally:
            faulthandler.cancel_dump_traceback_later()

    def _publish(self) -> None:
        self._beat.number += 1
        self._set(f"beat/{self._rank}", json.dumps(asdict(self._beat)))

    def _trouble(self) -> str:
        """ "stuck" if a peer waited for others in vain, "ended" if one ended with an error, else nothing."""
        for kind in ("stuck", "ended"):
            told = self._get(kind)
            if told is not None and json.loads(told)["rank"] != self._rank:
                return kind
        return ""

    def _tell(self, kind: str, text: str) -> None:
        self._publish()
        self._set(f"{kind}/{self._rank}", text)
        self._set(kind, json.dumps({"rank": self._rank}))

    def _explain(self, error: BaseException) -> ProcessLost:
        """Which process is to blame for a collective that failed, from what all of them said last."""
        waited = is_timeout(error)
        before = self._beats()
        time.sleep(2.5 * BEAT_SECONDS)
        silent = [rank for rank, beat in self._beats().items() if rank in before and before[rank].number == beat.number]
        message = self._blame(first_line(error), waited=waited, silent=silent)
        if waited:
            self._tell("stuck", self._beat.place)
            time.sleep(2 * BEAT_SECONDS)  # what keeps the store may end with this process
        return ProcessLost(message)

    def _blame(self, failure: str, *, waited: bool, silent: Sequence[int] = ()) -> str:
        beats = self._beats()
        causes = []
        for rank in sorted(set(range(self._world_size)) - {self._rank}):
            told, beat = self._get(f"ended/{rank}"), beats.get(rank)
            name = f"Process {rank} of {self._world_size}" + (f" (id {beat.pid} on {beat.host})" if beat else "")
            where = f" at {beat.place}" if beat else ""
            last = f", last heard of{where}" if beat else ""
            if told is not None:
                causes.append(f"{name} ended{where} with {told.rstrip('.')}.")
            elif beat is None or rank in silent:
                causes.append(f"{name} is gone{last}: it was killed or crashed, or its machine is lost.")
            elif waited and beat.count < self._beat.count:
                causes.append(f"{name} is stuck at {beat.place}; its stacks are in its stderr and in the run folder.")
        waiting = f" for {self._timeout:g} seconds" if waited else ""
        cause = " ".join(causes) or f"No process is known to be gone ({failure})."
        return (
            f"Process {self._rank} waited{waiting} at {self._beat.place} for others that do not go on. {cause} {GO_ON}"
        )

    def _beats(self) -> dict[int, Beat]:
        told = {rank: self._get(f"beat/{rank}") for rank in range(self._world_size)}
        return {rank: Beat(**json.loads(text)) for rank, text in told.items() if text is not None}

    def _end_with_stacks(self, why: str, code: int) -> None:
        header = f"Process {self._rank} ends at {self._beat.place}: {why}. The stacks of its threads:\n"
        _write_error(header)
        with contextlib.suppress(OSError, ValueError):
            faulthandler.dump_traceback(2)
        if self.folder is not None:
            with (
                contextlib.suppress(OSError),
                (self.folder / f"stacks-{self._rank}.txt").open("w", encoding="utf-8") as file,
            ):
                file.write(header)
                file.flush()
                faulthandler.dump_traceback(file)
        os._exit(code)

    def _set(self, key: str, text: str) -> None:
        if self._store is not None:
            with self._until_the_store_is_gone():
                self._store.set(self._prefix + key, text)

    def _get(self, key: str) -> str | None:
        if self._store is not None:
            with self._until_the_store_is_gone():
                if self._store.check([self._prefix + key]):
                    return self._store.get(self._prefix + key).decode()
        return None

    @contextlib.contextmanager
    def _until_the_store_is_gone(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError:  # with the launcher, or with the first process, which keep it
            self._store = None


def _write_error(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, text.encode())
