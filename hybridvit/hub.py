"""The Hugging Face hub: what hf://OWNER/NAME stands for, and files fetched from there by the hub's own client.

The client keeps them in its own cache, and reads HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE, HF_HOME and the variables of
proxies. Importing this imports neither torch nor the client.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from hybridvit.errors import CheckpointError, UsageError, first_line

SCHEME = "hf://"
REPOSITORY = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # of timm's layout, which is ours too; the first one there is read
_PLACE = re.compile(rf"hf://({REPOSITORY})(?:@([^/@]+))?(?:/([^@]+))?")
_OFFLINE = ("HYBRIDVIT_OFFLINE", "HF_HUB_OFFLINE")


@dataclass(frozen=True, kw_only=True)
class HubPlace:
    """A model in a repository of the hub."""

    repository: str  # OWNER/NAME
    revision: str | None = None  # a branch, a tag or a commit; None: the main branch
    file: str = ""  # in the repository; empty: its weights

    @property
    def name(self) -> str:
        """What files that are made of it are called."""
        return Path(self.file).name if self.file else self.repository.partition("/")[2]


def hub_place(path: str | os.PathLike[str]) -> HubPlace | None:
    """What hf://OWNER/NAME, with @REVISION and /FILE behind it or not, stands for; None for the path of a file.

    A slash in a revision is written %2F. Raises UsageError for what begins with hf:// and is nothing of that.
    """
    text = os.fspath(path)
    if not text.startswith(SCHEME):
        return None
    found = _PLACE.fullmatch(text)
    if found is None or ".." in text:
        raise UsageError(
            f"'{text}' is no place on the hub: write hf://OWNER/NAME, with a branch, tag or commit as "
            "hf://OWNER/NAME@REVISION, and for a certain file hf://OWNER/NAME/FILE."
        )
    revision = unquote(found[2]) if found[2] else None
    return HubPlace(repository=found[1], revision=revision, file=found[3] or "")


def local_file(path: str | os.PathLike[str]) -> Path:
    """The file that `path` means: one on the hub is fetched, if the hub's cache does not have it.

    Raises UsageError for a malformed hf:// address, CheckpointError for a file that cannot be had.
    """
    place = hub_place(path)
    if place is None:
        return Path(path)
    return fetch_from_hub(place.repository, (place.file,) if place.file else WEIGHTS, revision=place.revision)


def is_offline() -> bool:
    """Whether the user has switched the network off."""
    return any(os.environ.get(name, "").lower() in {"1", "true", "yes", "on"} for name in _OFFLINE)


def fetch_from_hub(repository: str, files: tuple[str, ...], *, revision: str | None = None) -> Path:
    """The first of `files` that the repository has. Raises CheckpointError if there is none, or if it cannot be had."""
    import huggingface_hub as hub  # imported here, since it takes long and only this function needs it
    from huggingface_hub import errors

    unreachable = "the network is switched off" if is_offline() else _why_unreachable(repository, files[0])
    options: dict[str, Any] = {} if revision is None else {"revision": revision}
    shown = repository if revision is None else f"{repository}@{revision}"
    for name in files:
        try:
            return Path(hub.hf_hub_download(repository, name, local_files_only=bool(unreachable), **options))
        except errors.LocalEntryNotFoundError as error:
            reason = f": {unreachable}" if unreachable else ""
            raise _hub_error(shown, files, f"it is not in the cache and the hub cannot be reached{reason}") from error
        except errors.EntryNotFoundError:
            continue
        except errors.RevisionNotFoundError as error:
            raise CheckpointError(
                f"{repository} on the Hugging Face hub has no branch, tag or commit '{revision}'. Its page lists them."
            ) from error
        except errors.GatedRepoError as error:
            raise CheckpointError(
                f"{repository} on the Hugging Face hub is open to those alone whom its owner admits. Ask for it on its "
                "page, and run `hf auth login`."
            ) from error
        except errors.RepositoryNotFoundError as error:
            raise CheckpointError(
                f"There is no {repository} on the Hugging Face hub, or it is private and your token, if any, does not "
                "open it. Check the name; for a private one run `hf auth login`, or set HF_TOKEN."
            ) from error
        except Exception as error:  # the hub's client lets every kind of network and token error through
            raise _hub_error(shown, files, f"{type(error).__name__}: {first_line(error)}") from error
    raise _hub_error(shown, files, f"it has no {' and no '.join(files)}")


def _why_unreachable(repository: str, file: str) -> str:
    """Why the hub does not answer, empty if it does. Its client would only say so after six tries in 24 seconds."""
    import huggingface_hub as hub
    from huggingface_hub import errors

    try:
        hub.get_hf_file_metadata(hub.hf_hub_url(repository, file))
    except errors.HfHubHTTPError:  # an answer, whatever it says
        return ""
    except Exception as error:  # as above
        return f"{type(error).__name__}: {first_line(error)}"
    return ""


def _hub_error(shown: str, files: tuple[str, ...], reason: str) -> CheckpointError:
    return CheckpointError(
        f"The weights '{shown}' cannot be fetched from the Hugging Face hub ({reason}). Download "
        f"{files[0]} of '{shown}' on a connected machine, and pass its path instead of a name."
    )
