"""Linux, macOS and Windows: paths with drive letters, text of equal bytes, files that stay while they are open."""

import hashlib
import ntpath
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hybridvit.atomic import write_text
from hybridvit.data.listing import scan_folder
from hybridvit.data.scan import relative
from hybridvit.data.shards.cache import ShardCache
from hybridvit.data.shards.remote import Remote, is_url


@pytest.mark.parametrize("root", ["photos", "/photos", "C:\\photos", "C:/photos", "C://photos", "\\\\server\\photos"])
def test_a_folder_is_not_taken_for_a_url(root: str) -> None:
    assert not is_url(root)


@pytest.mark.parametrize("root", ["https://host/photos", "s3://bucket/photos", "memory://photos"])
def test_a_url_is_one(root: str) -> None:
    assert is_url(root)


def test_a_path_inside_a_data_set_is_written_alike_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as windows:
        windows.setattr(os, "path", ntpath)
        windows.setattr(os, "sep", "\\")
        assert relative("C:\\photos\\cat\\white\\one.jpg", "C:\\photos") == "cat/white/one.jpg"


def test_the_fingerprint_of_a_data_set_is_of_such_paths(tmp_path: Path) -> None:
    (tmp_path / "cat" / "white").mkdir(parents=True)
    (tmp_path / "cat" / "white" / "one.jpg").write_bytes(b"one")
    expected = hashlib.sha256(b"cat/white/one.jpg\x003\x00").hexdigest()
    assert scan_folder(tmp_path).fingerprint == expected


def test_text_has_the_same_bytes_on_every_system(tmp_path: Path) -> None:
    write_text(tmp_path / "a.csv", "größe\n1\n")
    assert (tmp_path / "a.csv").read_bytes() == "größe\n1\n".encode()


class Sends(Remote):
    """A server that sends one content, whatever is asked for."""

    content = b"12345"

    def __init__(self) -> None:
        pass

    def fetch(self, url: str, target: Path, check: Callable[[Path], str]) -> None:
        target.write_bytes(self.content)
        assert not check(target)


def test_a_cached_file_that_windows_does_not_delete_because_it_is_open_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ShardCache(tmp_path, max_bytes=15)
    for name in ("open.tar", "closed.tar"):
        (tmp_path / name).write_bytes(b"1234567")
    os.utime(tmp_path / "open.tar", (0, 0))  # the least recently used
    unlink = Path.unlink

    def refused(path: Path, missing_ok: bool = False) -> None:
        if path.name == "open.tar":
            raise PermissionError("it is open")
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refused)
    digest = hashlib.sha256(Sends.content).hexdigest()
    with cache.open(Sends(), "https://host/1.tar", sha256=digest, num_bytes=5) as file:
        assert file.read() == Sends.content
    assert (tmp_path / "open.tar").exists()
    assert not (tmp_path / "closed.tar").exists()
