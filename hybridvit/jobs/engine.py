"""What carries out the units of a job: processes of this machine, or a cluster."""

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence

from hybridvit.errors import DatasetError
from hybridvit.jobs.unit import Receipt

TICK_S = 0.5
"""How long an engine waits before it says that nothing has happened."""


class Engine(ABC):
    """Does units, in any order; each at least once, unless it raises."""

    @abstractmethod
    def receipts(self, numbers: Sequence[int]) -> Generator[Receipt | DatasetError | None, None, None]:
        """The receipts as they come; a DatasetError for a unit that cannot be read; None where nothing has happened.

        Closed, it ends all that it has started. Raises what no other unit would be spared: CheckpointError, DiskFull,
        ProcessLost ...
        """
