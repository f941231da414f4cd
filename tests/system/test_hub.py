"""Fetching weights: a loopback server that does everything wrong a server can do."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import save

from hybridvit.checkpoints import fetch, hub, read_tensors
from hybridvit.errors import CheckpointError, UsageError
from hybridvit.pretrained import find_weights

CONTENT = save({"a": torch.arange(5000.0)})
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.BaseHTTPRequestHandler):
    """Answers according to the path, and counts the requests."""

    requests_seen: list[str]

    def do_GET(self) -> None:
        self.requests_seen.append(self.path)
        kind = Path(self.path).stem
        if kind in ("missing", "denied"):
            self.send_error(404 if kind == "missing" else 403)
        elif kind in ("loop", "downgrade", "file"):
            target = {"loop": self.path, "downgrade": "http://example.invalid/x", "file": "file:///etc/passwd"}[kind]
            self.send_response(302)
            self.send_header("Location", target)
            self.end_headers()
        else:
            body = b"<html>log in</html>" if kind == "page" else CONTENT
            announced = {"announces_more": len(body) + 50, "announces_less": len(body) - 50}.get(kind, len(body))
            self.send_response(200)
            if kind not in ("unannounced", "unannounced_cut"):
                self.send_header("Content-Length", str(announced))
            self.end_headers()
            self.wfile.write(body[:9000] if kind in ("cut", "unannounced_cut") else body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a running server, with an empty cache."""
    for name in ("HYBRIDVIT_OFFLINE", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HYBRIDVIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Server, "requests_seen", [], raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def cached_files(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache").iterdir()) if (tmp_path / "cache").exists() else []


@pytest.mark.parametrize("kind", ["good", "unannounced"])
def test_a_file_is_fetched_once(server: str, tmp_path: Path, kind: str) -> None:
    path = fetch(f"{server}/{kind}.safetensors", sha256=DIGEST)
    assert path.parent == tmp_path / "cache"
    assert path.read_bytes() == CONTENT
    assert read_tensors(path).tensors["a"].shape == (5000,)
    assert fetch(f"{server}/{kind}.safetensors") == path
    assert len(Server.requests_seen) == 1


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("cut", "was cut off: 9,000 of 20,072 bytes arrived"),
        ("unannounced_cut", "did not send weights: what it sent is damaged"),
        ("announces_more", "was cut off"),
        ("announces_less", "did not send weights: what it sent is damaged"),
        ("page", "did not send weights: what it sent is a web page"),
        ("missing", "answered 404"),
        ("denied", "answered 403"),
        ("loop", "answered 302"),
        ("downgrade", "http://example.invalid/x is not an https address"),
        ("file", "answered 302"),
    ],
)
def test_what_a_server_does_wrong_is_named_and_nothing_stays(
    server: str, tmp_path: Path, kind: str, message: str
) -> None:
    with pytest.raises(CheckpointError) as caught:
        fetch(f"{server}/{kind}.safetensors")
    assert message in str(caught.value)
    assert cached_files(tmp_path) == []


def test_a_wrong_digest_is_refused_and_nothing_stays(server: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"has SHA-256 {DIGEST}, expected {'0' * 64}"):
        fetch(f"{server}/good.safetensors", sha256="0" * 64)
    assert cached_files(tmp_path) == []
    with pytest.raises(UsageError, match="must be the full digest"):
        fetch(f"{server}/good.safetensors", sha256=DIGEST[:8])


def test_a_damaged_cached_file_is_fetched_again(server: str) -> None:
    url = f"{server}/good.safetensors"
    path = fetch(url, sha256=DIGEST)
    path.write_bytes(CONTENT[:-8] + bytes(8))
    assert fetch(url, sha256=DIGEST).read_bytes() == CONTENT


def test_clients_at_the_same_time_do_not_disturb_each_other(server: str, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: fetch(f"{server}/good.safetensors", sha256=DIGEST), range(8)))
    assert len(set(paths)) == 1
    assert cached_files(tmp_path) == [paths[0]]
    assert paths[0].read_bytes() == CONTENT


def test_files_of_one_name_do_not_share_a_place() -> None:
    assert hub.cached_path("https://a/plain/t8.pth.tar") != hub.cached_path("https://a/distilled/t8.pth.tar")
    assert hub.cached_path("https://a/plain/t8.pth.tar").name.endswith("-t8.pth.tar")


@pytest.mark.parametrize("variable", ["HYBRIDVIT_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_only_the_cache_is_used(server: str, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    url = f"{server}/good.safetensors"
    monkeypatch.setenv(variable, "1")
    with pytest.raises(CheckpointError) as caught:
        fetch(url, sha256=DIGEST)
    for part in (url, DIGEST, str(hub.cached_path(url)), "pass the path of the downloaded file"):
        assert part in str(caught.value)
    assert Server.requests_seen == []
    monkeypatch.delenv(variable)
    path = fetch(url)
    monkeypatch.setenv(variable, "1")
    assert fetch(url) == path


def test_a_server_that_is_not_there_is_named(server: str) -> None:
    with pytest.raises(
        CheckpointError, match=r"cannot be fetched \(.*refused.*\)\. Fetch http://127\.0\.0\.1:9/x\.pth"
    ):
        fetch("http://127.0.0.1:9/x.pth")


@pytest.mark.parametrize("source", ["http://example.invalid/x.pth"])
def test_an_address_that_is_not_encrypted_is_refused(source: str) -> None:
    with pytest.raises(CheckpointError, match="is not an https address"):
        fetch(source)


@pytest.mark.parametrize("source", ["fastvit_t8", "file:///etc/passwd", "ftp://a/b", "../m.pth", "runs/m.pth", "a/b/c"])
def test_a_source_that_is_none_is_refused(source: str) -> None:
    with pytest.raises(UsageError, match="is no source of weights"):
        fetch(source)


@pytest.fixture
def reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that answers."""
    for name in ("HYBRIDVIT_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda _: None)


class FakeHub:
    """`hf_hub_download` of a repository that has the given files."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.folder, self.names, self.asked = folder, names, []

    def __call__(self, repository: str, name: str, **options: Any) -> str:
        self.asked.append((repository, name, options))
        if name not in self.names:
            raise huggingface_hub.errors.EntryNotFoundError(f"no {name}")
        (self.folder / name).write_bytes(CONTENT)
        return str(self.folder / name)


def test_hub_ids_prefer_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeHub(tmp_path, "model.safetensors", "pytorch_model.bin")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fake)
    assert fetch("hf-hub:timm/fastvit_t8.apple_in1k", sha256=DIGEST) == tmp_path / "model.safetensors"
    assert fake.asked[0][:2] == ("timm/fastvit_t8.apple_in1k", "model.safetensors")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", FakeHub(tmp_path, "pytorch_model.bin"))
    assert fetch("timm/fastvit_t8.apple_in1k") == tmp_path / "pytorch_model.bin"
    with pytest.raises(CheckpointError, match=f"has SHA-256 {DIGEST}, expected"):
        fetch("timm/fastvit_t8.apple_in1k", sha256="0" * 64)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", FakeHub(tmp_path))
    with pytest.raises(CheckpointError, match=r"it has no model\.safetensors and no pytorch_model\.bin"):
        fetch("timm/fastvit_t8.apple_in1k")


def test_a_file_of_a_repository_is_fetched_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeHub(tmp_path, "model.safetensors", "fastervit_0_224_1k.pth.tar")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fake)
    path = fetch("ahatamiz/FasterViT", file="fastervit_0_224_1k.pth.tar", sha256=DIGEST)
    assert path == tmp_path / "fastervit_0_224_1k.pth.tar"
    assert [asked[:2] for asked in fake.asked] == [("ahatamiz/FasterViT", "fastervit_0_224_1k.pth.tar")]
    with pytest.raises(
        CheckpointError, match=r"it has no fastervit_9\.pth\.tar\)\. Download fastervit_9\.pth\.tar of 'ahatamiz"
    ):
        fetch("ahatamiz/FasterViT", file="fastervit_9.pth.tar")
    with pytest.raises(UsageError, match="is the address of a file already"):
        fetch("https://example.invalid/x.pth", file="y.pth")


@pytest.mark.parametrize("variable", ["HYBRIDVIT_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_a_repositorys_file_comes_from_the_hubs_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    fake = FakeHub(tmp_path, "a.pth.tar")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fake)
    monkeypatch.setenv("HYBRIDVIT_OFFLINE", "0")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv(variable, "1")
    fetch("ahatamiz/FasterViT", file="a.pth.tar")
    assert fake.asked[0][2] == {"local_files_only": True}


def test_a_hub_out_of_reach_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        CheckpointError, match=r"'timm/absent\.weights' cannot be fetched.*pass its path instead of a name"
    ):
        fetch("timm/absent.weights")


@pytest.mark.usefixtures("reachable")
def test_what_the_hub_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("[Errno 104] Connection reset by peer")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(CheckpointError, match="Connection reset by peer"):
        fetch("timm/fastvit_t8.apple_in1k")


@pytest.mark.usefixtures("reachable")
def test_without_a_network_the_hub_is_asked_once_and_the_message_says_how_a_file_is_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = []

    def no_network(url: str) -> None:
        questions.append(url)
        raise OSError("[Errno -2] Name or service not known")

    class EmptyCache(FakeHub):
        def __call__(self, repository: str, name: str, **options: Any) -> str:
            assert options == {"local_files_only": True}
            if name not in self.names:
                raise huggingface_hub.errors.LocalEntryNotFoundError("no such file")
            return super().__call__(repository, name, **options)

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", no_network)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", EmptyCache(tmp_path))
    with pytest.raises(
        CheckpointError,
        match=r"cannot be reached: OSError: \[Errno -2\].* A file is passed with --pretrained FILE, in Python pretr",
    ):
        find_weights("fastvit_t8", True)
    assert len(questions) == 1
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", EmptyCache(tmp_path, "model.safetensors"))
    assert find_weights("fastvit_t8", True).path == tmp_path / "model.safetensors"


@pytest.mark.usefixtures("reachable")
def test_an_answer_that_refuses_is_no_missing_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> None:
        raise huggingface_hub.errors.HfHubHTTPError("404", response=SimpleNamespace(headers={}, request=None))

    fake = FakeHub(tmp_path, "pytorch_model.bin")
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", refuse)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fake)
    assert fetch("timm/fastvit_t8.apple_in1k") == tmp_path / "pytorch_model.bin"
    assert [options for *_, options in fake.asked] == [{"local_files_only": False}] * 2
