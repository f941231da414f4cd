"""The machine card: without it a latency is a number about nothing."""

import os
import platform
import sys
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from hybridvit.errors import UsageError
from hybridvit.machine.threads import given_environment

PACKAGES = (
    "hybridvit", "torch", "torchvision", "timm", "onnx", "onnxscript", "onnxruntime", "openvino", "nncf", "coremltools",
    "coreai-torch", "executorch", "torchao", "litert-torch", "ai-edge-litert", "ai-edge-quantizer", "tensorrt", "numpy",
)  # fmt: skip
THREADING = (
    "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "OMP_PROC_BIND", "GOMP_SPINCOUNT", "GOMP_CPU_AFFINITY", "KMP_BLOCKTIME",
    "KMP_AFFINITY", "MKL_NUM_THREADS", "ONEDNN_MAX_CPU_ISA",
)  # fmt: skip
# what decides which kernels run: vector width, and the units for bf16 and int8
INSTRUCTION_SETS = (
    "sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "avx_vnni", "amx_tile", "amx_bf16", "amx_int8", "neon", "asimd", "asimddp", "sve", "sve2", "bf16", "i8mm",
)  # fmt: skip

NVIDIA_DRIVER = Path("/sys/module/nvidia/version")  # on Linux


@dataclass(frozen=True, kw_only=True)
class MachineCard:
    """Where a measurement was taken."""

    processor: str
    cores: int  # that this process may use
    memory_gib: float | None  # None where the system does not tell
    instruction_sets: tuple[str, ...]
    gpu: str  # "none", or names, memory, CUDA version and driver
    system: str
    python: str  # "" where none computed, as in a browser
    versions: dict[str, str]  # installed packages only
    environment: dict[str, str]  # variables that decide how threads run, where set

    def to_dict(self) -> dict[str, object]:
        """Plain types for JSON."""
        return asdict(self)

    def lines(self) -> list[tuple[str, str]]:
        """Pairs of title and text, for print and for the report."""
        memory = "" if self.memory_gib is None else f", {self.memory_gib:.0f} GiB"
        return [
            ("Processor", f"{self.processor}, {self.cores} cores usable{memory}"),
            ("Instruction sets", " ".join(self.instruction_sets) or "unknown"),
            ("GPU", self.gpu),
            ("System", f"{self.system}, Python {self.python}" if self.python else self.system),
            ("Threading", ", ".join(f"{name}={value}" for name, value in self.environment.items()) or "as by default"),
            ("Libraries", ", ".join(f"{name} {number}" for name, number in self.versions.items())),
        ]


@cache
def machine_card(*, timed: bool = False) -> MachineCard:
    """Describe this machine, with the variables of this process or of what is `timed`.

    Imports torch (for the GPU); opens no file outside /proc and asks no network.
    """
    model_name, flags = _cpu_facts()
    memory = total_memory()
    variables = given_environment() if timed else os.environ
    return MachineCard(
        processor=model_name,
        cores=usable_cores(),
        memory_gib=None if memory is None else memory / 2**30,
        instruction_sets=tuple(name for name in INSTRUCTION_SETS if name in flags),
        gpu=_gpu(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=".".join(str(part) for part in sys.version_info[:3]),
        versions=package_versions(),
        environment={name: variables[name] for name in THREADING if name in variables},
    )


def package_versions() -> dict[str, str]:
    """The versions of the packages that computed a result; those not installed are left out."""
    return {name: found for name in PACKAGES if (found := installed_version(name))}


def installed_version(package: str) -> str:
    """The version of a package; "" if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def usable_cores() -> int:
    """The cores that this process may run on, which a container often limits below the machine's."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def total_memory() -> int | None:
    """Bytes of memory that the machine has; None where the system does not tell."""
    if sys.platform == "win32":
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_threads(threads: int | None) -> None:
    """Raise UsageError for a number of threads below one, or above the cores; None leaves the choice to the runtime."""
    if threads is not None and threads < 1:
        raise UsageError(f"The number of threads is {threads}, but at least one must compute. Leave --threads out.")
    if threads is not None and threads > usable_cores():
        raise UsageError(
            f"The number of threads is {threads}, but this process may use {usable_cores()} cores, on which more "
            f"threads would wait for each other. Use --threads {usable_cores()}, or leave it out."
        )


def facts_in(path: Path) -> dict[str, str]:
    """What a file of Linux says in lines of "name: value", by lower-case name, the first of each; empty without it."""
    facts: dict[str, str] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            facts.setdefault(name.strip().lower(), value.strip())
    return facts


def bytes_in(path: Path, name: str) -> int | None:
    """A number of kB in such a file, as bytes; None where it says nothing of it."""
    value = facts_in(path).get(name.lower())
    return int(value.split()[0]) * 1024 if value else None


def _cpu_facts() -> tuple[str, frozenset[str]]:
    facts = facts_in(Path("/proc/cpuinfo"))
    elsewhere = "" if facts else platform.processor()
    name = facts.get("model name") or facts.get("cpu model") or elsewhere or platform.machine()
    flags = facts.get("flags") or facts.get("features") or ""  # "Features" on ARM
    return name, frozenset(flags.split())


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none"
    devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    names = ", ".join(f"{device.name} ({device.total_memory / 2**30:.0f} GiB)" for device in devices)
    driver = ", driver " + NVIDIA_DRIVER.read_text(encoding="ascii").strip() if NVIDIA_DRIVER.exists() else ""
    return f"{names}, CUDA {torch.version.cuda}{driver}"
