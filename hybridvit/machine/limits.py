"""What this process may use of the machine: a container often allows less than there is."""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from hybridvit.machine.facts import bytes_in, total_memory, usable_cores

CGROUP = Path("/sys/fs/cgroup")
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Cores, and bytes of memory and disk; None where the system does not tell."""

    cores: int  # that this process may run on
    core_share: float | None  # cores' worth of time that the container allows, None: no limit
    memory_total: int | None
    memory_free: int | None
    memory_limit: int | None  # of the container
    shared_memory: int | None  # free on /dev/shm, through which loader processes pass images
    disk_free: int | None

    @property
    def memory_usable(self) -> int | None:
        """What a new process can take: the free memory, or the rest of the container's."""
        known = [size for size in (self.memory_free, self.memory_limit) if size is not None]
        return min(known) if known else None

    def to_dict(self) -> dict[str, object]:
        """Plain types for JSON."""
        return asdict(self) | {"memory_usable": self.memory_usable}


def limits(output: Path) -> Limits:
    """The limits here and now; `output` is where a run would be written."""
    memory = Path("/proc/meminfo")
    quota = _cgroup_values("cpu.max")
    limit, used = _cgroup_bytes("memory.max"), _cgroup_bytes("memory.current")
    return Limits(
        cores=usable_cores(),
        core_share=int(quota[0]) / int(quota[1]) if len(quota) == 2 and quota[0].isdigit() else None,
        memory_total=bytes_in(memory, "MemTotal") or total_memory(),
        memory_free=bytes_in(memory, "MemAvailable"),
        memory_limit=None if limit is None else max(0, limit - (used or 0)),
        shared_memory=shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else None,
        disk_free=_free_disk(output),
    )


def _cgroup_values(name: str) -> list[str]:
    try:
        return (CGROUP / name).read_text(encoding="ascii").split()
    except OSError:
        return []


def _cgroup_bytes(name: str) -> int | None:
    values = _cgroup_values(name)
    return int(values[0]) if values and values[0].isdigit() else None


def _free_disk(path: Path) -> int | None:
    path = path.expanduser().absolute()
    for folder in (path, *path.parents):
        if folder.is_dir():
            return shutil.disk_usage(folder).free
    return None
