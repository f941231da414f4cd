"""The most memory that this process has had, and since when."""

import resource
import sys
from pathlib import Path


def peak_bytes() -> int:
    """Resident, at the most. Not ru_maxrss on Linux: it begins at the peak of the process that started this one."""
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    return 1024 * int(status["VmHWM"].split()[0])


def forget_peak() -> None:
    """Count from now on. Linux alone lets one."""
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
