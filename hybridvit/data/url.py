"""Pictures behind http and https addresses: bounded in bytes and in time. Needs the standard library only."""

import http.client
import time
import urllib.error
import urllib.parse
import urllib.request
from email.message import Message
from typing import IO

from hybridvit.data.file_kind import image_format
from hybridvit.data.scan import is_url
from hybridvit.errors import ImageDecodeError

MAX_BYTES = 100_000_000  # of a picture
TIMEOUT_S = 20.0  # without a byte
MAX_SECONDS = 120.0  # in all
_CHUNK_BYTES = 1 << 16


def fetch(
    url: str, *, max_bytes: int = MAX_BYTES, timeout_s: float = TIMEOUT_S, max_seconds: float = MAX_SECONDS
) -> bytes:
    """The bytes of the picture at `url`; of what is no picture, only the start.

    Redirects are followed to http and https alone. Raises ImageDecodeError, with the address, the cause and the fix,
    for one that cannot be reached, answers with an error, sends too much, too slowly, or less than it announced.
    """
    headers = {"User-Agent": "hybridvit", "Accept": "image/*, */*;q=0.5"}
    try:
        request = urllib.request.Request(_quoted(url), headers=headers)
        with _opener().open(request, timeout=timeout_s) as response:
            return _read(response, url, max_bytes, time.monotonic() + max_seconds)
    except urllib.error.HTTPError as error:
        error.close()  # or it would hold the connection open
        raise ImageDecodeError(f"{url}: {_refusal(error)}") from error
    except ImageDecodeError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, TimeoutError):
            raise ImageDecodeError(_too_slow(url, f"nothing came for {timeout_s:g} s")) from error
        said = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        raise ImageDecodeError(
            f"{url}: cannot be reached ({said}). Check the address and the network; behind a proxy, set https_proxy."
        ) from error


def _read(response: http.client.HTTPResponse, url: str, max_bytes: int, deadline: float) -> bytes:
    announced = int(response.headers.get("Content-Length") or -1)
    content = bytearray()
    while announced <= max_bytes and len(content) <= max_bytes:
        chunk = response.read1(_CHUNK_BYTES)
        content += chunk
        if not chunk and len(content) < announced:
            raise ImageDecodeError(
                f"{url}: was cut off: {len(content):,} of {announced:,} bytes arrived. Try again, or download it."
            )
        if not chunk or (len(content) >= 512 and image_format(bytes(content[:512])) is None):
            return bytes(content)
        if time.monotonic() > deadline:
            raise ImageDecodeError(_too_slow(url, f"after {len(content):,} bytes the time is over"))
    size = f"{max(announced, len(content)):,}" + ("" if announced > max_bytes else " or more")
    raise ImageDecodeError(
        f"{url}: has {size} bytes, but at most {max_bytes:,} are fetched. Download it, and give the file."
    )


def _too_slow(url: str, what: str) -> str:
    return f"{url}: the server is too slow: {what}. Try again, or download it and give the file."


def _refusal(error: urllib.error.HTTPError) -> str:
    if error.code in (404, 410):
        return f"not found: the server answers {error.code} {error.reason}. Check the address."
    if 300 <= error.code < 400:
        return f"the server sends elsewhere, and that is not followed ({' '.join(str(error.reason).split())})."
    if error.code in (401, 403):
        return f"the server answers {error.code} {error.reason}. Download the picture in a browser, and give the file."
    return f"the server answers {error.code} {error.reason}. Try again later, or download the picture yourself."


def _quoted(url: str) -> str:
    """With spaces and letters beyond ASCII as servers want them; what is quoted already stays so."""
    parts = urllib.parse.urlsplit(url)
    path, query = (urllib.parse.quote(part, safe="/%:@!$&'()*+,;=~-._?") for part in (parts.path, parts.query))
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc, path, query, ""))


class _WebAlone(urllib.request.HTTPRedirectHandler):
    """Redirects to other places than the web are refused; urllib would follow those to ftp."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        if not is_url(newurl):
            fp.close()
            raise ImageDecodeError(f"{req.full_url}: the server sends to {newurl}, which is no http or https address.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]  # as urllib calls it


def _opener() -> urllib.request.OpenerDirector:
    """For http and https, proxies and errors; nothing that opens files."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _WebAlone(),
    ):
        opener.add_handler(handler)
    return opener
