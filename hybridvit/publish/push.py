"""Publish a finished run on the Hugging Face hub, in one commit or not at all.

Tokens, proxies, caches and the address of the hub are its client's business: HF_TOKEN or `hf auth login`, HTTPS_PROXY,
HF_ENDPOINT, HF_HUB_OFFLINE.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from hybridvit.atomic import check_writable
from hybridvit.errors import HubError, UsageError
from hybridvit.hub import REPOSITORY, SCHEME, is_offline
from hybridvit.publish.finished import read_run
from hybridvit.publish.folder import Contents, write_contents
from hybridvit.publish.repository import Remote

LONGEST_NAME = 96  # characters of OWNER/NAME, as the hub has it


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What was published, or in a dry run written."""

    repository: str
    contents: Contents
    url: str  # of the commit; empty: nothing was sent
    is_new: bool  # whether the repository was created for it

    @property
    def place(self) -> str:
        """What other commands take for it."""
        return f"{SCHEME}{self.repository}"


def push(
    run: str | os.PathLike[str],
    repository: str,
    *,
    private: bool = False,
    revision: str = "main",
    licence: str = "",
    dry_run: str | os.PathLike[str] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Pushed:
    """Publish a run's model with its card, numbers and curves: `hybridvit.push("runs/digits", "ada/digits")`.

    Args:
        run: the folder of a run that has ended.
        repository: OWNER/NAME on the hub. One that is not there is created; one that is empty, or holds nothing but
            what an earlier push wrote, gets a commit; any other is left as it is.
        private: create it for its owner alone.
        revision: the branch; one that is not there is created.
        licence: of weights that were trained from scratch, such as "apache-2.0".
        dry_run: write the folder there instead, and send nothing.
        say: told what is going to be sent before it is.

    Raises UsageError for a run, a name, a licence or a repository that cannot be used, and where the token is missing
    or may not write; CheckpointError for a damaged run; HubError where the hub does not answer or refuses. Nothing is
    sent before all else is known to be right, and what was sent counts only once the commit is made.
    """
    _check_name(repository)
    _check_revision(revision)
    target = None if dry_run is None else Path(dry_run).expanduser()
    if target is not None:
        _check_empty(target)
    elif is_offline():
        raise HubError("The network is switched off, so nothing can be pushed. Unset HF_HUB_OFFLINE, or use --dry_run.")
    found = read_run(Path(run))
    with tempfile.TemporaryDirectory(prefix="hybridvit-push-") as temporary:
        if target is not None:
            contents = write_contents(found, repository, Path(temporary), licence=licence)
            return Pushed(repository=repository, contents=_kept(contents, target), url="", is_new=False)
        remote = Remote.opened(repository, revision, private=private)
        contents = write_contents(found, repository, Path(temporary), licence=licence)
        for line in listed(contents):
            say(line)
        if contents.notice:
            say(contents.notice)
        quantity, value = found.measured[0]
        url = remote.commit(contents, message=f"{found.recipe.model}, {quantity.title} {quantity.text(value)}")
        return Pushed(repository=repository, contents=contents, url=url, is_new=remote.is_new)


def listed(contents: Contents) -> list[str]:
    """The files with their sizes, a line each."""
    sizes = {name: (contents.folder / name).stat().st_size for name in contents.files}
    return [f"  {size:>13,} bytes  {name}" for name, size in sizes.items()]


def _check_name(repository: str) -> None:
    is_name = re.fullmatch(REPOSITORY, repository) is not None and len(repository) <= LONGEST_NAME
    if not is_name or ".." in repository or "--" in repository or repository.endswith((".git", ".", "-")):
        raise UsageError(
            f"'{repository[:120]}' is no name of a repository: write OWNER/NAME, of letters, digits, single - and ., "
            f"and _, {LONGEST_NAME} characters at most, such as ada/digits-t8."
        )


def _check_revision(revision: str) -> None:
    if (
        not re.fullmatch(r"[A-Za-z0-9][\w./-]*", revision)
        or ".." in revision
        or re.fullmatch(r"[0-9a-f]{40}", revision)
    ):
        raise UsageError(f"--revision is '{revision[:120]}', but must be the name of a branch, such as main or v2.")


def _check_empty(target: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"--dry_run is {target}, which is there already. Name a new or an empty folder.")
    check_writable(target, is_folder=True)


def _kept(contents: Contents, target: Path) -> Contents:
    """The contents in the place that the user named, which appears whole."""
    beside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        shutil.copytree(contents.folder, beside, dirs_exist_ok=True)
        beside.chmod(0o755)
        if target.exists():
            target.rmdir()
        beside.rename(target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return replace(contents, folder=target)
