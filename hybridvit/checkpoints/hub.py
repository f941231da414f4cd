"""Fetch published weights, once, into a cache. Nothing here touches the network unless `fetch` is called."""

import hashlib
import http.client
import logging
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import IO

from hybridvit.atomic import replacing
from hybridvit.cache import cache_folder
from hybridvit.checkpoints.files import check_file
from hybridvit.digest import sha256_of
from hybridvit.errors import CheckpointError, UsageError
from hybridvit.hub import REPOSITORY, WEIGHTS, fetch_from_hub, is_offline

log = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 30.0
_HUB_ID = re.compile(rf"(?:hf-hub:)?({REPOSITORY})(?<!\.safetensors)(?<!\.pth)(?<!\.pt)(?<!\.tar)")


def fetch(source: str, *, file: str = "", sha256: str | None = None) -> Path:
    """The local file of published weights; downloaded if it is not in the cache yet.

    Args:
        source: a hub id such as "timm/fastvit_t8.apple_in1k", or an https address.
        file: which file of the hub's repository; by default the one that timm's layout has.
        sha256: the expected digest, 64 hexadecimal digits; a file with another one is deleted.

    The cache is $HYBRIDVIT_CACHE, else $XDG_CACHE_HOME/hybridvit, else ~/.cache/hybridvit; hub ids use the hub's own
    cache. With HYBRIDVIT_OFFLINE=1 or HF_HUB_OFFLINE=1 only the cache is used. Raises UsageError for a source that is
    neither, CheckpointError if the file cannot be had or is not what it should be, DiskFull if it cannot be stored.
    """
    if sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise UsageError(f"sha256 is '{sha256}', but must be the full digest: 64 lower-case hexadecimal digits.")
    if source.startswith(("https://", "http://")):
        if file:
            raise UsageError(f"file is '{file}', but {source} is the address of a file already. Leave file out.")
        return _fetch_url(source, sha256)
    if match := _HUB_ID.fullmatch(source):
        return _fetch_hub(match[1], (file,) if file else WEIGHTS, sha256)
    raise UsageError(
        f"'{source}' is no source of weights: give a hub id such as 'timm/fastvit_t8.apple_in1k', an https address, or "
        "the path of a local file."
    )


def cached_path(url: str) -> Path:
    """Where the file at `url` is kept. Part of the name is the address's digest: sources reuse file names."""
    name = Path(urllib.parse.urlsplit(url).path).name or "weights"
    return cache_folder() / f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{name}"


def _by_hand(url: str, path: Path, sha256: str | None) -> str:
    digest = f" (SHA-256 {sha256})" if sha256 else ""
    return (
        f"Fetch {url}{digest} on a connected machine and store it as {path}, or pass the path of the downloaded file "
        "instead of a name."
    )


def _fetch_url(url: str, sha256: str | None) -> Path:
    _check_address(url)
    path = cached_path(url)
    if path.is_file():
        if sha256 is None or sha256_of(path) == sha256:
            return path
        log.warning("%s is damaged (its SHA-256 is not %s): fetching it again", path, sha256)
    if is_offline():
        reason = "is damaged" if path.is_file() else "is not in the cache"
        raise CheckpointError(f"{url} {reason} and the network is switched off. {_by_hand(url, path, sha256)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"The cache {path.parent} cannot be created ({error.strerror}). Set HYBRIDVIT_CACHE to another folder."
        ) from error
    log.info("fetching %s", url)
    with replacing(path) as temporary:
        digest = _download(url, temporary, path, sha256)
        if sha256 is not None and digest != sha256:
            raise CheckpointError(
                f"{url} has SHA-256 {digest}, expected {sha256}: the file was changed or damaged on its way, and was "
                "deleted. Try again; if it stays so, do not use it."
            )
        _check_weights(url, temporary)
    log.info("%s: SHA-256 %s", path, digest)
    return path


def _check_address(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in {"127.0.0.1", "localhost", "::1"}):
        return
    raise CheckpointError(f"{url} is not an https address, so what it sends could be changed on its way. Use https.")


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follow a redirect only to an address that could have been asked for in the first place."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        try:
            _check_address(newurl)
        except CheckpointError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]  # as urllib calls it


def _download(url: str, temporary: Path, path: Path, sha256: str | None) -> str:
    """Stream `url` into `temporary`; its SHA-256. Raises CheckpointError unless all announced bytes arrived."""
    digest, received = hashlib.sha256(), 0
    try:
        with urllib.request.build_opener(_SafeRedirects).open(url, timeout=TIMEOUT_S) as response:
            announced = response.headers.get("Content-Length")
            with temporary.open("wb") as file:
                for chunk in _chunks(response):
                    file.write(chunk)
                    digest.update(chunk)
                    received += len(chunk)
    except urllib.error.HTTPError as error:
        error.close()  # or it would hold the connection open
        raise CheckpointError(f"{url} answered {error.code} {error.reason}. {_by_hand(url, path, sha256)}") from error
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise CheckpointError(f"{url} cannot be fetched ({reason}). {_by_hand(url, path, sha256)}") from error
    if announced is not None and announced.isdigit() and int(announced) != received:
        raise CheckpointError(
            f"{url} was cut off: {received:,} of {int(announced):,} bytes arrived, and they were deleted. Try again."
        )
    return digest.hexdigest()


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while chunk := response.read(CHUNK_BYTES):
        yield chunk


def _check_weights(url: str, path: Path) -> None:
    """Refuse a page, a pointer or a cut-off file before it takes its place in the cache."""
    try:
        check_file(path)
    except CheckpointError as error:
        raise CheckpointError(f"{url} did not send weights: {error}".replace(str(path), "what it sent")) from error


def _fetch_hub(repository: str, files: tuple[str, ...], sha256: str | None) -> Path:
    path = fetch_from_hub(repository, files)
    if sha256 is not None and (digest := sha256_of(path)) != sha256:
        raise CheckpointError(f"{path} has SHA-256 {digest}, expected {sha256}. Delete it and fetch it again.")
    return path
