"""Which packages work here: each is imported in a process of its own, so that a broken one breaks nothing else."""

import re
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Literal

TIMEOUT_SECONDS = 60
AT_ONCE = 2  # imports use a core each
IMPORT_NAMES = {  # where it is not the package's name with _ for -
    "hybridvit": "hybridvit",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
}
HIDDEN_EXTRAS = ("dev", "all")


@dataclass(frozen=True, kw_only=True)
class PackageState:
    """One package: whether it can be used, and if not, why."""

    name: str
    state: Literal["works", "missing", "broken"]
    version: str = ""
    reason: str = ""  # of a broken one, the last line of its error


def required_and_optional() -> tuple[list[str], dict[str, list[str]]]:
    """The packages that hybridvit needs, and those of each extra, from its own metadata."""
    required: list[str] = []
    optional: dict[str, list[str]] = {}
    for line in requires("hybridvit") or []:
        specification, _, marker = line.partition(";")
        name = re.split(r"[\s\[<>=!~;(]", specification.strip(), maxsplit=1)[0].lower()
        extra = re.search(r"extra\s*==\s*[\"']([^\"']+)[\"']", marker)
        if extra is None:
            required.append(name)
        elif extra[1] not in HIDDEN_EXTRAS and name != "hybridvit":
            optional.setdefault(extra[1], []).append(name)
    return required, optional


def states_of(names: Iterable[str]) -> dict[str, PackageState]:
    """The state of each package, by name. Imports each, two at a time."""
    names = list(dict.fromkeys(names))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(names, pool.map(_state_of, names), strict=True))


def _state_of(name: str) -> PackageState:
    try:
        installed = version(name)
    except PackageNotFoundError:
        return PackageState(name=name, state="missing")
    module = IMPORT_NAMES.get(name, name.replace("-", "_"))
    try:
        done = subprocess.run(
            [sys.executable, "-c", f"import {module}"],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        reason = f"its import took more than {TIMEOUT_SECONDS} s"
        return PackageState(name=name, state="broken", version=installed, reason=reason)
    if done.returncode == 0:
        return PackageState(name=name, state="works", version=installed)
    said = done.stderr.strip().splitlines()
    reason = said[-1] if said else f"its import ended with code {done.returncode}"
    return PackageState(name=name, state="broken", version=installed, reason=reason)
