"""Which packages work here: they are imported in a process of their own, so that a broken one breaks nothing else."""

import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import requires
from typing import Literal

from hybridvit.machine.facts import installed_version

TIMEOUT_SECONDS = 120
MARK = "imported: "
IMPORT_EACH = f"""
import importlib, sys
for module in sys.argv[1:]:
    try:
        importlib.import_module(module)
        reason = ""
    except BaseException as error:
        reason = " ".join(f"{{type(error).__name__}}: {{error}}".split())[:300]
    print("{MARK}" + module, reason, flush=True)
"""
IMPORT_NAMES = {  # what the commands import of it, where that is not the package's name with _ for -
    "hybridvit": "hybridvit",
    "imagecorruptions-imaug": "imagecorruptions",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn.datasets",
    "tensorboard": "torch.utils.tensorboard",  # whose protobuf may be too old although tensorboard itself is imported
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
    """The state of each package, by name.

    All are imported in one process, which is fast; what that process did not get to, because one of them ended it, is
    imported alone.
    """
    names = list(dict.fromkeys(names))
    installed = {name: found for name in names if (found := installed_version(name))}
    reasons = _imported(list(installed))
    for name in installed:
        if name not in reasons:
            alone = _imported([name])
            reasons[name] = alone.get(name, f"its import ended Python, or took more than {TIMEOUT_SECONDS} s")
    return {
        name: PackageState(name=name, state="missing")
        if name not in installed
        else PackageState(
            name=name, state="broken" if reasons[name] else "works", version=installed[name], reason=reasons[name]
        )
        for name in names
    }


def _imported(names: list[str]) -> dict[str, str]:
    """Why each package cannot be imported, empty if it can; those after a crash are left out."""
    modules = {IMPORT_NAMES.get(name, name.replace("-", "_")): name for name in names}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-X", "utf8", "-c", IMPORT_EACH, *modules],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT_SECONDS,
            stdin=subprocess.DEVNULL,
        )
        said = done.stdout
    except subprocess.TimeoutExpired as error:
        said = error.stdout.decode(errors="replace") if isinstance(error.stdout, bytes) else error.stdout or ""
    lines = [line.removeprefix(MARK).partition(" ") for line in said.splitlines() if line.startswith(MARK)]
    return {modules[module]: reason.strip() for module, _, reason in lines if module in modules}
