"""What is shown to a model: frames of videos, pictures behind addresses, cameras, and all of them mixed."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import av
import numpy as np
import pytest
from pictures import encode, noise
from PIL import Image
from videos import truncated, write_video

from hybridvit.data import inputs, video
from hybridvit.data.ahead import ahead
from hybridvit.data.inputs import FrameAt, FrameTaking, find_inputs, pictures
from hybridvit.data.url import fetch
from hybridvit.errors import DatasetError, ImageDecodeError, UsageError

LEVELS = tuple(range(0, 240, 20))


def grey(image: Image.Image) -> int:
    """Of the right half."""
    return round(float(np.asarray(image)[:, -20:].mean()))


def test_frames_come_with_their_numbers_and_times(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", LEVELS, rate=10)
    shown = list(pictures([path], FrameTaking(every=5)))
    assert [(each.frame, each.seconds) for each in shown] == [(0, 0.0), (5, 0.5), (10, 1.0)]
    assert [grey(each.content) for each in shown] == pytest.approx([LEVELS[0], LEVELS[5], LEVELS[10]], abs=4)
    assert shown[1].where == FrameAt(path, 5, 0.5)
    assert str(shown[1].where) == f"{path}, frame 5 (0.50 s)"
    assert shown[0].footage == (2, 1.2)
    assert len(list(pictures([path], FrameTaking(most=4)))) == 4


def test_times_are_those_of_the_file_where_frames_come_unevenly(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mkv", LEVELS[:4], rate=10, times=[0, 1, 7, 20])
    assert [each.seconds for each in pictures([path])] == pytest.approx([0, 0.1, 0.7, 2.0], abs=2e-3)


@pytest.mark.parametrize(("rotation", "red"), [(90, "bottom"), (-90, "top"), (180, "right")])
def test_a_video_is_shown_upright(tmp_path: Path, rotation: int, red: str) -> None:
    (shown,) = pictures([write_video(tmp_path / "clip.mp4", [0], rotation=rotation)])
    assert isinstance(shown.content, Image.Image)
    assert shown.content.size == ((64, 48) if red == "right" else (48, 64))
    redness = np.asarray(shown.content)[..., 0].astype(int)
    half = redness.shape[0] // 2, redness.shape[1] // 2
    sides = {"top": redness[: half[0]], "bottom": redness[half[0] :], "right": redness[:, half[1] :]}
    assert max(sides, key=lambda side: sides[side].mean()) == red
    assert sides[red].mean() > 200


def test_a_truncated_video_gives_its_frames_and_then_says_how_many(tmp_path: Path) -> None:
    path = truncated(write_video(tmp_path / "clip.mp4", LEVELS * 2, index_first=True), 0.7)
    *frames, last = pictures([path])
    assert 4 < len(frames) < 20
    assert isinstance(last.content, ImageDecodeError)
    assert last.frame is None
    assert f"clip.mp4: the video is truncated: {len(frames)} of 24 frames could be read" in str(last.content)


def test_a_container_that_counts_no_frames_is_judged_by_its_duration(tmp_path: Path) -> None:
    path = truncated(write_video(tmp_path / "clip.mkv", LEVELS * 2), 0.4)
    *frames, last = pictures([path])
    assert f"truncated: {len(frames)} frames, {frames[-1].seconds:.1f} of 2.4 s, could be read" in str(last.content)


def test_damaged_parts_are_passed_over_and_counted(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", LEVELS * 2, index_first=True)
    content = bytearray(path.read_bytes())
    for place in range(len(content) // 2, len(content), 97):
        content[place] ^= 255
    path.write_bytes(content)
    *frames, last = pictures([path])
    assert len(frames) > 8
    assert "damaged parts were passed over" in str(last.content)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"no video " * 99, "this is no video that can be read, or one whose recording was not finished"), (b"", "video")],
    ids=["text", "empty"],
)
def test_what_is_no_video_is_one_error(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    (shown,) = pictures([path])
    assert isinstance(shown.content, ImageDecodeError)
    assert str(shown.content).startswith(f"{path}: ")
    assert message in str(shown.content)


def test_a_file_of_sound_alone_has_no_pictures(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "song.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    (shown,) = pictures([tmp_path / "song.mp4"])
    assert "has no pictures, only sound" in str(shown.content)


def test_videos_lie_among_pictures_and_addresses_and_cameras_are_taken_as_such(tmp_path: Path) -> None:
    noise().save(tmp_path / "a.png")
    write_video(tmp_path / "b.mp4", [0])
    (tmp_path / "c.txt").write_text("text", encoding="utf-8")
    said: list[str] = []
    found = find_inputs([tmp_path, "HTTPS://example.com/x.jpg", "camera:0", str(tmp_path / "a.png")], say=said.append)
    assert found == [tmp_path / "a.png", tmp_path / "b.mp4", "HTTPS://example.com/x.jpg", "camera:0"]
    assert "1 file without the ending of an image (.txt 1)" in said[0]
    with pytest.raises(DatasetError, match="does not exist"):
        find_inputs([tmp_path / "none.mp4"])


def test_without_pyav_videos_among_pictures_are_left_out_and_alone_refused(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(inputs, "have_pyav", lambda: False)
    monkeypatch.setattr(video, "have_pyav", lambda: False)
    noise().save(tmp_path / "a.png")
    write_video(tmp_path / "b.mp4", [0])
    said: list[str] = []
    assert find_inputs([tmp_path], say=said.append) == [tmp_path / "a.png"]
    assert said[0].startswith(f"Left out of {tmp_path}: 1 video. Reading videos and cameras needs the package av.")
    for word in (tmp_path / "b.mp4", "camera:0"):
        with pytest.raises(UsageError, match=r'Run: pip install "hybridvit\[video\]"'):
            find_inputs([word])
    with pytest.raises(UsageError, match="needs the package av"):
        video.Video("b.mp4", tmp_path / "b.mp4")


@pytest.mark.parametrize(("option", "number"), [("every", 0), ("frames", -1)])
def test_numbers_of_frames_start_at_one(option: str, number: int) -> None:
    with pytest.raises(UsageError, match=f"--{option} is {number}, but it must be at least 1"):
        FrameTaking(**{{"frames": "most"}.get(option, option): number})


def test_choosing_frames_of_pictures_is_refused(tmp_path: Path) -> None:
    for taking, option in ((FrameTaking(every=2), "every"), (FrameTaking(most=2), "frames")):
        with pytest.raises(UsageError, match=f"--{option} is for videos and cameras"):
            taking.check([tmp_path / "a.png"])
        taking.check([tmp_path / "a.png", tmp_path / "b.mp4"])


@pytest.mark.parametrize(
    ("system", "opened", "options"),
    [
        ("linux", ("/dev/video0", "v4l2"), {}),
        ("darwin", ("0", "avfoundation"), {"framerate": "30"}),
        ("win32", ("video=Front", "dshow"), {}),
    ],
)
def test_a_camera_is_opened_as_its_system_wants_it(
    tmp_path: Path, monkeypatch: Any, system: str, opened: tuple[str, str], options: dict[str, str]
) -> None:
    stand_in = av.open(str(write_video(tmp_path / "clip.mp4", LEVELS)))
    asked: list[Any] = []

    def open_device(name: str, *, format: str, options: dict[str, str]) -> Any:
        asked.append(((name, format), options))
        return stand_in

    front = av.DeviceInfo("Front", "", True, ["video"])
    monkeypatch.setattr(av, "enumerate_input_devices", lambda kind: [av.DeviceInfo("Mic", "", True, ["audio"]), front])
    monkeypatch.setattr(av, "open", open_device)
    monkeypatch.setattr(video.sys, "platform", system)
    shown = list(pictures(["camera:0"], FrameTaking(most=3)))
    assert [each.frame for each in shown] == [0, 1, 2]
    assert shown[0].source == "camera:0"
    assert asked == [(opened, options)]


def test_a_camera_that_is_not_there_is_one_error() -> None:
    (shown,) = pictures(["camera:77"])
    assert isinstance(shown.content, ImageDecodeError)
    assert str(shown.content).startswith("camera:77: the camera cannot be opened (")
    assert "the first one is camera:0" in str(shown.content)


class Server(BaseHTTPRequestHandler):
    """Answers by path."""

    picture: ClassVar[bytes] = encode(noise(), "PNG")

    def do_GET(self) -> None:
        name = self.path.strip("/")
        if name.startswith("to-"):
            self.send_response(302)
            self.send_header("Location", {"to-file": "file:///etc/passwd", "to-ftp": "ftp://h/x", "to-it": "/it"}[name])
            self.end_headers()
        elif name in ("it", "cut", "a%20b", "slow"):
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.picture) + (9 if name == "cut" else 0)))
            self.end_headers()
            if name == "slow":
                time.sleep(0.4)
            self.wfile.write(self.picture)
        elif name == "page":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<!DOCTYPE html><html></html>" * 99_999)
        else:
            self.send_error(int(name))

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


@pytest.mark.parametrize("name", ["it", "a b", "to-it"])
def test_a_picture_comes_from_an_address(server: str, name: str) -> None:
    assert fetch(f"{server}/{name}") == Server.picture


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("404", "not found: the server answers 404"),
        ("403", "answers 403 Forbidden. Download the picture in a browser"),
        ("503", "answers 503 Service Unavailable. Try again later"),
        ("to-file", r"sends elsewhere, and that is not followed \(.*file:///etc/passwd.*not allowed"),
        ("to-ftp", "sends to ftp://h/x, which is no http or https address"),
        ("cut", r"was cut off: [\d,]+ of [\d,]+ bytes arrived"),
    ],
)
def test_what_cannot_be_fetched_says_why(server: str, name: str, message: str) -> None:
    with pytest.raises(ImageDecodeError, match=f"{server}/{name}: .*{message}"):
        fetch(f"{server}/{name}")


def test_fetching_has_its_limits(server: str) -> None:
    with pytest.raises(ImageDecodeError, match=r"has [\d,]+ bytes, but at most 100 are fetched\. Download it"):
        fetch(f"{server}/it", max_bytes=100)
    with pytest.raises(ImageDecodeError, match=r"too slow: nothing came for 0\.1 s"):
        fetch(f"{server}/slow", timeout_s=0.1)
    with pytest.raises(ImageDecodeError, match=r"too slow: after .* bytes the time is over"):
        fetch(f"{server}/it", max_seconds=-1)


def test_an_address_that_no_one_answers_is_told_from_a_bad_picture() -> None:
    with pytest.raises(ImageDecodeError, match=r"cannot be reached \(Connection refused\)\. Check the address"):
        fetch("http://127.0.0.1:9/x.png")
    with pytest.raises(ImageDecodeError, match=r"cannot be reached \(.*\)\. Check the address and the network"):
        fetch("http://no-such-host.invalid/x.png")
    with pytest.raises(ImageDecodeError, match=r"http://\[bad: cannot be reached \(Invalid IPv6 URL\)"):
        fetch("http://[bad")


def test_of_what_is_no_picture_only_the_start_is_fetched(server: str) -> None:
    content = fetch(f"{server}/page")
    assert content.startswith(b"<!DOCTYPE")
    assert len(content) < 1_000_000


def test_a_thread_that_runs_ahead_keeps_order_stops_early_and_hands_errors_on() -> None:
    made: list[int] = []
    closed = threading.Event()

    def numbers() -> Iterator[int]:
        try:
            for number in range(100):
                made.append(number)
                yield number
                if number == 4 and fails:
                    raise DatasetError("the fifth")
        finally:
            closed.set()

    fails = False
    stream = ahead(numbers(), 2)
    assert [next(stream) for _ in range(3)] == [0, 1, 2]
    time.sleep(0.05)
    assert len(made) <= 6  # three taken, two waiting, one in hand
    stream.close()
    assert closed.wait(1)
    fails = True
    got = []
    with pytest.raises(DatasetError, match="the fifth"):
        got.extend(number for number in ahead(numbers(), 2))
    assert made[-5:] == [0, 1, 2, 3, 4]
    assert BytesIO(bytes(ahead((n for n in range(3)), 1))).read() == b"\x00\x01\x02"
