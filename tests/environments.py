"""Environments of their own for installed wheels, and the wheel itself, made of the files that git tracks."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from required import missing

ROOT = Path(__file__).parents[1]
SECONDS = 600


def tracked() -> list[str]:
    """The files of this checkout that git tracks, as they lie here."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        missing("git", "what is packed is what git tracks, so run this test in a checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def clean_copy(folder: Path) -> Path:
    """`folder`, with a copy of what git tracks."""
    for name in tracked():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    return folder


def built(source: Path, kind: str, output: Path) -> Path:
    """The file that `make dist` would write of `source`: "sdist" or "wheel"."""
    words = ["-m", "build", "--no-isolation", f"--{kind}", "--outdir", str(output), str(source)]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = output.iterdir()
    return file


@dataclass(frozen=True, kw_only=True)
class Environment:
    """An environment in a folder, used from a place outside of this checkout."""

    folder: Path
    outside: Path

    @property
    def scripts(self) -> Path:
        return self.folder / ("Scripts" if sys.platform == "win32" else "bin")

    def run(self, program: str, *words: object, seconds: float = SECONDS) -> "subprocess.CompletedProcess[str]":
        """A program of the environment: python, or a command that a package has installed."""
        variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        variables["PATH"] = os.pathsep.join([str(self.scripts), variables.get("PATH", "")])
        return subprocess.run(
            [self.scripts / program, *map(str, words)],
            cwd=self.outside,
            env=variables | {"PYTHONUTF8": "1"},
            capture_output=True,
            encoding="utf-8",
            timeout=seconds,
        )

    def output_of(self, program: str, *words: object) -> str:
        """What it prints; it has to end with 0."""
        done = self.run(program, *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def beside_installed_packages(folder: Path, wheel: Path) -> Environment:
    """An environment with `wheel`, and all packages of this one but hybridvit itself: made in a second, offline.

    What an editable installation adds to this environment's path stands in a .pth file, and such files are read in an
    environment's own folder alone.
    """
    packages = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    environment = beside(folder, packages)
    install_with_pip(environment, "--no-deps", "--no-index", str(wheel))
    return environment


def beside(folder: Path, packages: Iterable[str | Path]) -> Environment:
    """An environment with nothing of its own, which sees folders of packages; pip installs beside them."""
    environment = empty(folder)
    base = {"base": str(environment.folder), "platbase": str(environment.folder)}
    own = Path(sysconfig.get_path("purelib", "venv", base))
    (own / "packages.pth").write_text("\n".join(map(str, packages)), encoding="utf-8")
    return environment


def required_packages(folder: Path) -> Path:
    """`folder`, with links to what hybridvit requires and what that requires in turn, as it is installed here."""
    waiting, seen = ["hybridvit"], {"hybridvit"}
    while waiting:
        for line in distribution(waiting.pop()).requires or ():
            needed = Requirement(line)
            name = canonicalize_name(needed.name)
            if name in seen or not (needed.marker is None or needed.marker.evaluate({"extra": ""})):
                continue
            seen.add(name)
            waiting.append(name)
            installed = distribution(name)
            tops = {file.parts[0] for file in installed.files or ()} - {"..", "__pycache__"}
            for top in tops:
                if not (folder / top).exists():
                    (folder / top).symlink_to(Path(str(installed.locate_file(top))))
    return folder


def empty(folder: Path) -> Environment:
    """An environment with nothing in it."""
    venv.create(folder / "env", with_pip=False)
    return Environment(folder=folder / "env", outside=folder)


def install_with_pip(environment: Environment, *words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    """`pip install WORDS` into an environment, by this one's pip."""
    pip = [sys.executable, "-m", "pip", "--python", str(environment.folder), "--disable-pip-version-check"]
    done = subprocess.run([*pip, "install", "--quiet", "--no-compile", *words], capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stderr
    return done
