"""A repository of the hub that a push writes to: asked before anything is sent, and changed by one commit."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hybridvit
from hybridvit.errors import HubError, HybridViTError, UsageError, first_line, some
from hybridvit.publish.folder import MANIFEST, Contents

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ModelInfo

OF_THE_HUB = frozenset({".gitattributes"})  # what the hub puts into every repository
UNAUTHORISED, FORBIDDEN, CONFLICTS = 401, 403, (409, 412)  # answers by HTTP


@dataclass(frozen=True, kw_only=True)
class Remote:
    """What is known of the repository before the commit."""

    repository: str
    revision: str  # the branch
    private: bool  # create it so
    head: str | None  # the commit that is replaced; None: the repository is not there yet
    has_branch: bool
    old: frozenset[str]  # files of an earlier push

    @property
    def is_new(self) -> bool:
        """Whether the repository has to be created."""
        return self.head is None

    @classmethod
    def opened(cls, repository: str, revision: str, *, private: bool) -> "Remote":
        """Ask the hub who we are and what is there; nothing is changed.

        Raises UsageError where the token is missing or refused, or where the repository is not ours to replace;
        HubError where the hub does not answer.
        """
        api = _client()
        with _explained(repository, "Nothing was sent."):
            api.whoami()
            info, has_branch = _found(api, repository, revision)
        if info is None:
            head, old = None, frozenset[str]()
        else:
            if private and not info.private:
                raise UsageError(
                    f"{repository} is there already, and everyone can see it. Make it private on its page, or leave "
                    "--private out."
                )
            head, old = info.sha, _of_earlier_push(api, repository, info)
        return cls(repository=repository, revision=revision, private=private, head=head, has_branch=has_branch, old=old)

    def commit(self, contents: Contents, *, message: str) -> str:
        """Create what is missing, send the files, and make them count by one commit; its address.

        Files of the earlier push that are not among them are removed by the same commit. Raises UsageError where the
        token may not write, HubError where the hub refuses or is gone.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        api = _client()
        with _explained(self.repository, "Nothing was sent."):
            if self.is_new:
                api.create_repo(self.repository, private=True if self.private else None)
            if not self.has_branch:
                api.create_branch(self.repository, branch=self.revision, exist_ok=True)
        state = "is created, and empty" if self.is_new else "is as it was"
        added = [
            CommitOperationAdd(path_in_repo=name, path_or_fileobj=contents.folder / name) for name in contents.files
        ]
        removed = [CommitOperationDelete(path_in_repo=name) for name in sorted(self.old - set(contents.files))]
        with _explained(self.repository, f"The commit is made whole or not at all: {self.repository} {state}."):
            made = api.create_commit(
                self.repository,
                operations=[*added, *removed],
                commit_message=message,
                revision=self.revision,
                parent_commit=self.head if self.has_branch else None,
            )
        return made.commit_url


def _client() -> "HfApi":
    from huggingface_hub import HfApi, get_token

    if not get_token():
        raise UsageError(
            "There is no token of the Hugging Face hub, so nothing can be written there. Run `hf auth login`, or set "
            "HF_TOKEN to a token with the right to write."
        )
    return HfApi(library_name="hybridvit", library_version=hybridvit.__version__)


def _found(api: "HfApi", repository: str, revision: str) -> "tuple[ModelInfo | None, bool]":
    """What the hub says of the repository, None if there is none; and whether it has the branch."""
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        return api.model_info(repository, revision=revision), True
    except RevisionNotFoundError:  # the branch will begin with what the main one has
        return api.model_info(repository), False
    except RepositoryNotFoundError:
        return None, revision == "main"


def _of_earlier_push(api: "HfApi", repository: str, info: "ModelInfo") -> frozenset[str]:
    """The files in the repository, all of an earlier push. Raises UsageError for a repository with any other."""
    there = frozenset(each.rfilename for each in info.siblings or ()) - OF_THE_HUB
    with _explained(repository, "Nothing was sent."):
        own = (
            _listed(api.hf_hub_download(repository, MANIFEST, revision=info.sha)) if MANIFEST in there else frozenset()
        )
    if foreign := sorted(there - own):
        raise UsageError(
            f"{repository} holds files that no push of hybridvit wrote ({some(foreign, quoted=True)}), and is left as "
            "it is. Choose another name, or delete these files on its page."
        )
    return there


def _listed(manifest: str) -> frozenset[str]:
    """The files that a manifest lists; none where it is no manifest."""
    try:
        told: Any = json.loads(Path(manifest).read_text(encoding="utf-8"))
        return frozenset(map(str, told["files"]))
    except (OSError, ValueError, LookupError, TypeError):
        return frozenset()


@contextmanager
def _explained(repository: str, state: str) -> Iterator[None]:
    """Whatever the hub's client raises as an error of ours that says what stands there now."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except HybridViTError:
        raise
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status == UNAUTHORISED:
            raise UsageError(
                f"The hub does not take your token ({first_line(error)}). {state} Run `hf auth login`, or set HF_TOKEN "
                "to another."
            ) from error
        if status == FORBIDDEN:
            owner = repository.partition("/")[0]
            raise UsageError(
                f"Your token may not write to {repository} ({first_line(error)}). {state} Use a token with the right "
                f"to write as {owner}, or give another OWNER/NAME."
            ) from error
        if status in CONFLICTS:
            raise HubError(
                f"{repository} was changed by someone else meanwhile ({first_line(error)}). {state} Run the "
                "command again."
            ) from error
        raise HubError(f"The hub refused ({first_line(error)}). {state} Run the command again.") from error
    except Exception as error:  # the client lets every kind of network error through
        raise HubError(
            f"The hub does not answer, or refused ({type(error).__name__}: {first_line(error)}). {state} Run the "
            "command again."
        ) from error
