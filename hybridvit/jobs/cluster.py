"""The units of a job on a Ray cluster: one operator, whose actors keep the model and write their parts themselves.

Nothing but numbers of units goes to them and nothing but receipts comes back, so no object store fills, and with no
second operator none can wait for processors that the first one holds.
"""

import logging
import os
import queue
import secrets
import threading
from collections.abc import Generator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import hybridvit
from hybridvit.errors import DatasetError, HybridViTError, ProcessLost, SourceFault, UsageError, one_line
from hybridvit.jobs.engine import TICK_S, Engine
from hybridvit.jobs.model_files import copy_model
from hybridvit.jobs.options import Resources
from hybridvit.jobs.place import CONTROL, Place, open_place
from hybridvit.jobs.unit import Receipt
from hybridvit.jobs.worker import Work, Worker

_CHECK = f"{CONTROL}/check"
_CHECK_S = 60.0  # for all machines to read and write a small file
_MOST_BLOCKS = 5000  # tasks; with more units, each does several
_OBJECTS_BYTES = 200_000_000  # of a Ray that is begun here: receipts are small
_ENDED = object()


class RayEngine(Engine):
    """Actors of a Ray cluster, or of a Ray on this machine. Raises UsageError where it cannot be reached."""

    def __init__(self, work: Work, place: Place, resources: Resources) -> None:
        self._place, self._resources = place, resources
        model = Path(work.model)
        self._work = replace(work, model=model.name, copied=tuple(copy_model(model, place)))

    def receipts(self, numbers: Sequence[int]) -> Generator[Receipt | DatasetError | None, None, None]:
        if not numbers:
            return
        import ray

        self._connect()
        said: queue.SimpleQueue[Any] = queue.SimpleQueue()
        try:
            self._check_machines()
            threading.Thread(target=self._drive, args=(numbers, said), daemon=True, name="ray").start()
            while (answer := _taken(said)) is not _ENDED:
                if isinstance(answer, BaseException) and not isinstance(answer, DatasetError):
                    raise answer
                yield answer
        finally:
            ray.shutdown()

    def _connect(self) -> None:
        """To the cluster that is named, or of RAY_ADDRESS; else to one that is begun here."""
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what goes wrong is said by this job
        import ray

        logging.getLogger("ray").setLevel(logging.ERROR)

        settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
        address = self._resources.address or os.environ.get("RAY_ADDRESS")
        try:
            if address:
                ray.init(address=address, **settings)
            else:
                ray.init(address="local", include_dashboard=False, object_store_memory=_OBJECTS_BYTES, **settings)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UsageError(
                f"The Ray cluster at {address or 'this machine'} cannot be reached: {one_line(error)}. Begin one with "
                "`ray start --head`, or name it with --address HOST:PORT."
            ) from error

    def _check_machines(self) -> None:
        """Raise UsageError for a machine that does not see the job's folder, or has another hybridvit."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        token = secrets.token_hex(8)
        self._place.write(f"{_CHECK}/driver", token.encode())
        check = ray.remote(num_cpus=0)(reply)
        asked = {
            check.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False), max_retries=0
            ).remote(self._place.root, token, node["NodeID"], hybridvit.__version__): node
            for node in ray.nodes()
            if node["Alive"]
        }
        try:
            done, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_CHECK_S)
            for reference, node in asked.items():
                name = node["NodeManagerAddress"]
                fault = _fault_of(reference) if reference in done else "did not answer"
                file = f"{_CHECK}/{node['NodeID']}"
                if not fault and self._place_lacks(file, token):
                    fault = "wrote a file there that this machine does not see"
                if fault:
                    raise UsageError(
                        f"The machine {name} cannot work on this job: it {fault}. All machines need the folder "
                        f"{self._place.root} (shared, at the same path, or an s3:// URL) and hybridvit "
                        f"{hybridvit.__version__}."
                    )
        finally:
            for file in self._place.names(_CHECK):
                self._place.remove(f"{_CHECK}/{file}")

    def _place_lacks(self, name: str, content: str) -> bool:
        try:
            return self._place.read(name) != content.encode()
        except SourceFault:
            return True

    def _drive(self, numbers: Sequence[int], said: "queue.SimpleQueue[Any]") -> None:
        """In a thread, for nothing of Ray's waits with a limit of time.

        Ray gives a unit whose actor or machine was lost to another without end; workers end that.
        """
        try:
            for receipt in self._pipeline(numbers):
                fault = receipt.pop("fault")
                said.put(DatasetError(fault) if fault else Receipt(**receipt))
            said.put(_ENDED)
        except BaseException as error:  # whatever it is, the job's own thread raises it
            said.put(_as_ours(error))

    def _pipeline(self, numbers: Sequence[int]) -> Any:
        import ray
        from ray.data import ActorPoolStrategy, DataContext

        logging.getLogger("ray.data").setLevel(logging.ERROR)  # its import has set another
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        fewest, most = self._resources.pool
        if most is None:
            most = max(1, int(ray.cluster_resources().get("CPU", 1)) // self._resources.cpus_per_worker)
        pool = ActorPoolStrategy(min_size=min(fewest, most, len(numbers)), max_size=min(most, len(numbers)))
        units = ray.data.from_items(list(numbers), override_num_blocks=min(len(numbers), _MOST_BLOCKS))
        return units.map_batches(
            RayWorker,
            fn_constructor_kwargs={"work": self._work},
            batch_size=1,
            compute=pool,
            num_cpus=self._resources.cpus_per_worker,
            num_gpus=self._resources.gpus_per_worker or None,
        ).iter_rows()


class RayWorker:
    """What an actor does: units by their numbers."""

    def __init__(self, work: Work) -> None:
        self._worker = Worker(work)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """One unit: its receipt, or why it cannot be read."""
        (number,) = batch["item"].tolist()
        try:
            receipt, fault = self._worker.do(number), ""
        except DatasetError as error:
            receipt, fault = Receipt(unit=number, rows=0, bad=0, seconds=0.0), str(error)
        return {name: [value] for name, value in (asdict(receipt) | {"fault": fault}).items()}


def reply(root: str, token: str, node: str, version: str) -> str:
    """On a machine of the cluster: what is wrong with its hybridvit, or with the job's folder as it sees that."""
    if hybridvit.__version__ != version:
        return f"has hybridvit {hybridvit.__version__}"
    place = open_place(root)
    if place.read(f"{_CHECK}/driver") != token.encode():
        return "sees another folder there"
    place.write(f"{_CHECK}/{node}", token.encode())
    return ""


def _fault_of(reference: Any) -> str:
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        lines = str(error).strip().splitlines()
        return f"said: {lines[-1] if lines else type(error).__name__}"


def _taken(said: "queue.SimpleQueue[Any]") -> Any:
    try:
        return said.get(timeout=TICK_S)
    except queue.Empty:
        return None


def _as_ours(error: BaseException) -> BaseException:
    """The error of a worker, out of what Ray has put around it."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, HybridViTError):
        cause = getattr(cause, "cause", None) or cause.__cause__
    return cause or ProcessLost(f"Ray ended the job: {one_line(error)}. Done parts stay: repeat the command.")
