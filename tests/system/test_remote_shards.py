"""Shards behind URLs: fetched whole, checked, bounded on disk, and clear about what goes wrong."""

import http.server
import multiprocessing
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
import torch
from filelock import FileLock
from shard_sets import SMALL, pack, write_folder

from hybridvit.data.loader import make_train_loader
from hybridvit.data.shards import remote as remote_module
from hybridvit.data.shards.cache import ShardCache
from hybridvit.data.shards.images import ShardImages
from hybridvit.data.shards.remote import Patience, Remote
from hybridvit.data.transforms import EvalTransform
from hybridvit.errors import DatasetError, SourceFault, UsageError

IMPATIENT = Patience(attempts=2, first_wait_s=0.01, stall_s=0.5)
GB = 1_000_000_000
Fault = Callable[[http.server.BaseHTTPRequestHandler, bytes], None]


class Server:
    """Files of a folder over HTTP; `faults[name]` answers in place of the file, that many times."""

    def __init__(self, root: Path) -> None:
        self.faults: dict[str, tuple[Fault, int]] = {}
        self.requests: Counter[str] = Counter()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.lstrip("/")
                outer.requests[name] += 1
                if not (root / name).is_file():
                    self.send_error(404)
                    return
                content = (root / name).read_bytes()
                fault, times = outer.faults.get(name, (whole, 0))
                if outer.requests[name] <= times:
                    fault(self, content)
                else:
                    whole(self, content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def whole(handler: http.server.BaseHTTPRequestHandler, content: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def truncated(handler: http.server.BaseHTTPRequestHandler, content: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content[: len(content) // 2])
    handler.close_connection = True


def short(handler: http.server.BaseHTTPRequestHandler, content: bytes) -> None:
    whole(handler, content[:-100])


def changed(handler: http.server.BaseHTTPRequestHandler, content: bytes) -> None:
    whole(handler, content[:-1] + b"\x01")


def stalled(handler: http.server.BaseHTTPRequestHandler, content: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content[:10])
    handler.wfile.flush()
    time.sleep(1.5)


def refused(status: int) -> Fault:
    return lambda handler, _: handler.send_error(status)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return pack(write_folder(tmp_path / "photos"), tmp_path / "served")


@pytest.fixture
def server(shards: Path) -> Iterator[Server]:
    server = Server(shards)
    yield server
    server.close()


def open_remote(url: str, folder: Path, *, max_bytes: int = GB, **options: object) -> ShardImages:
    cache = ShardCache(folder / "cache", max_bytes)
    return ShardImages(url, **{"transform": EvalTransform(SMALL), "cache": cache, "patience": IMPATIENT, **options})


def settled(images: ShardImages) -> None:
    """Wait for the thread that fetches ahead."""
    thread = images._store._thread
    if thread is not None:
        thread.join(10)
        assert not thread.is_alive()


def test_over_http_the_images_are_those_of_the_folder(server: Server, shards: Path, tmp_path: Path) -> None:
    here = ShardImages(str(shards), transform=EvalTransform(SMALL), window=2)
    there = open_remote(server.url, tmp_path, window=2)
    assert there.fingerprint == here.fingerprint
    assert all(torch.equal(here[index][0], there[index][0]) for index in range(len(here)))
    settled(there)
    assert {count for name, count in server.requests.items() if name.endswith(".tar")} == {1}
    assert there.paths[0].startswith(f"{server.url}/shard-00000.tar/")


def test_a_second_run_fetches_nothing_but_the_index(server: Server, tmp_path: Path) -> None:
    for _ in range(2):
        images = open_remote(server.url, tmp_path)
        [images[index] for index in range(len(images))]
        settled(images)
    assert server.requests.pop("index.json") == 2
    assert set(server.requests.values()) == {1}


def test_the_next_window_is_fetched_ahead(server: Server, tmp_path: Path) -> None:
    images = open_remote(server.url, tmp_path, window=2, training=True, seed=4)
    order = images.blocks.order(4, 0)
    images.draw(0, int(images.index.starts[order[0]]))
    settled(images)
    fetched = {name for name in server.requests if name.endswith(".tar")}
    assert fetched == {images.index.shards[number].name for number in order[:4]}


@pytest.mark.parametrize("fault", [truncated, short, changed, stalled, refused(503), refused(429)])
def test_one_bad_answer_is_made_up_for(server: Server, tmp_path: Path, fault: Fault) -> None:
    server.faults["shard-00001.tar"] = (fault, 1)
    images = open_remote(server.url, tmp_path)
    assert images[int(images.index.starts[1])][0].shape == (3, 16, 16)
    settled(images)
    assert server.requests["shard-00001.tar"] == 2
    assert not list((tmp_path / "cache").glob(".*tmp-*"))


@pytest.mark.parametrize(
    ("fault", "requests", "message"),
    [
        (truncated, 2, r" in 2 attempts: .*(payload|length).*Check the network, and resume the run"),
        (
            short,
            2,
            r" in 2 attempts: [\d,]+ bytes arrived, but the index says [\d,]+\. If the shards",
        ),
        (changed, 2, r" in 2 attempts: its content is not what the index was written for \(other sha256\)"),
        (stalled, 2, r" in 2 attempts: no byte arrived for too long\. Check the network"),
        (refused(503), 2, r" in 2 attempts: the server answers 503 \(Service Unavailable\)"),
        (refused(403), 1, r": the server answers 403 \(Forbidden\)\. Check that you may read it"),
        (refused(404), 1, r": there is no such file\. Check the URL"),
    ],
)
def test_what_cannot_be_fetched_is_named_and_leaves_nothing(
    server: Server, tmp_path: Path, fault: Fault, requests: int, message: str
) -> None:
    remote = Remote("http", IMPATIENT)
    shard = open_remote(server.url, tmp_path).index.shards[2]
    server.faults[shard.name] = (fault, 99)
    cache = ShardCache(tmp_path / "other", GB)
    url = f"{server.url}/{shard.name}"
    with pytest.raises(SourceFault, match=rf"^{url} could not be fetched{message}"):
        cache.open(remote, url, sha256=shard.sha256, num_bytes=shard.num_bytes)
    assert server.requests[shard.name] == requests
    assert [path for path in (tmp_path / "other").iterdir() if path.suffix != ".lock" and path.name != ".lock"] == []


def test_a_missing_index_names_the_command(server: Server, shards: Path, tmp_path: Path) -> None:
    (shards / "index.json").unlink()
    with pytest.raises(DatasetError, match=r"/index.json could not be fetched: there is no such file.*hybridvit index"):
        open_remote(server.url, tmp_path)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_fault_reaches_the_user_through_workers(server: Server, tmp_path: Path, workers: int) -> None:
    images = open_remote(server.url, tmp_path, training=True, on_bad_image="skip")
    for shard in images.index.shards:
        server.faults[shard.name] = (refused(404), 99)
    loader = make_train_loader(images, batch_size=8, num_steps=1, workers=workers)
    with pytest.raises(SourceFault, match=r"^http\S+\.tar could not be fetched: there is no such file"):
        list(loader)
    loader.close()
    settled(images)


def test_s3_goes_through_its_file_system(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = fsspec.filesystem("memory")
    for path in shards.iterdir():
        memory.pipe_file(f"/bucket/set/{path.name}", path.read_bytes())

    class Bucket:
        """s3fs, as far as it is used: URLs in, files out."""

        def cat_file(self, url: str) -> bytes:
            return memory.cat_file(url.removeprefix("s3://"))

        def get_file(self, url: str, target: str) -> None:
            memory.get_file(url.removeprefix("s3://"), target)

    monkeypatch.setattr(remote_module, "_open", lambda protocol, patience: {"s3": Bucket()}[protocol])
    images = open_remote("s3://bucket/set", tmp_path)
    here = ShardImages(str(shards), transform=EvalTransform(SMALL))
    assert all(torch.equal(here[index][0], images[index][0]) for index in range(len(here)))
    settled(images)


def test_the_real_s3_file_system_takes_our_options() -> None:
    filesystem = remote_module._open("s3", IMPATIENT)
    assert filesystem.config_kwargs == {"connect_timeout": 0.5, "read_timeout": 0.5}


def test_an_unknown_protocol_and_a_missing_package_are_usage_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"'gopher://' is no kind of URL that can be read.*Use http, https or s3"):
        Remote("gopher")
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(UsageError, match=r'pip install "hybridvit\[remote\]"'):
        Remote("http")


# the cache


def sizes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.suffix == ".tar")


def test_the_cache_keeps_its_bound_and_the_most_recently_used(server: Server, tmp_path: Path) -> None:
    everything = open_remote(server.url, tmp_path / "all", window=1)
    shards, remote = everything.index.shards, Remote("http", IMPATIENT)
    bound = 3 * max(shard.num_bytes for shard in shards)
    cache = ShardCache(tmp_path / "small", bound)

    def use(number: int) -> None:
        shard = shards[number]
        cache.open(remote, f"{server.url}/{shard.name}", sha256=shard.sha256, num_bytes=shard.num_bytes).close()
        time.sleep(0.01)  # file systems tell times apart no finer
        assert sizes(cache.folder) <= bound

    for number in (0, 1, 0, 2, 0, 3, 0, 4, 0, 5):
        use(number)
    assert server.requests[shards[0].name] == 1
    assert (cache.folder / f"{shards[0].sha256}.tar").exists()
    assert not (cache.folder / f"{shards[1].sha256}.tar").exists()


def test_a_cache_too_small_for_two_windows_is_refused(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'data.cache_gb' is .* 2 shards of http.* Raise it, or lower data.shuffle"):
        open_remote(server.url, tmp_path, window=2, max_bytes=30_000)


def test_what_a_killed_process_left_in_the_cache_is_removed(server: Server, tmp_path: Path) -> None:
    images = open_remote(server.url, tmp_path)
    shard = images.index.shards[0]
    same = tmp_path / "cache" / f".{shard.sha256}.{shard.num_bytes}.tmp-dead"
    old = tmp_path / "cache" / ".feed.1000.tmp-dead"
    for path in (same, old):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    torn = tmp_path / "cache" / f"{images.index.shards[1].sha256}.tar"
    torn.write_bytes(b"cut short by a power failure")
    images[0], images[int(images.index.starts[1])]
    settled(images)
    assert not same.exists()
    assert not old.exists()
    assert torn.stat().st_size == images.index.shards[1].num_bytes


def read_all(
    url: str, folder: str, seed: int, max_bytes: int, reference: list[bytes], faults: "multiprocessing.Queue[str]"
) -> None:
    """A process that reads every image in an order of its own, several times."""
    try:
        images = open_remote(url, Path(folder), window=1, max_bytes=max_bytes, training=True, seed=seed)
        for epoch in range(3):
            generator = torch.Generator().manual_seed(10 * seed + epoch)
            for index in torch.randperm(len(images), generator=generator).tolist():
                if images.encoded(epoch, index) != reference[index]:
                    faults.put(f"{seed}: {index} differs")
            with FileLock(Path(folder) / "cache" / ".lock", is_singleton=False):  # or a file is counted that goes
                if sizes(Path(folder) / "cache") > max_bytes:
                    faults.put(f"{seed}: above the bound")
    except Exception as error:
        faults.put(f"{seed}: {error!r}")


def test_processes_share_a_cache_that_holds_a_third_of_the_set(server: Server, shards: Path, tmp_path: Path) -> None:
    here = ShardImages(str(shards), transform=EvalTransform(SMALL))
    reference = [here.encoded(0, index) for index in range(len(here))]
    bound = 2 * max(shard.num_bytes for shard in here.index.shards)
    assert bound < sum(shard.num_bytes for shard in here.index.shards) / 3
    context = multiprocessing.get_context("fork")
    faults = context.Queue()
    readers = [
        context.Process(target=read_all, args=(server.url, str(tmp_path), seed, bound, reference, faults))
        for seed in range(3)
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(60)
    assert [reader.exitcode for reader in readers] == [0, 0, 0]
    assert faults.empty(), faults.get()
