"""Damaged images give pixels or one kind of error, in bounded time and memory; all uses share one decoder."""

import hashlib
import multiprocessing
import random
import time
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from no_augment import NO_AUGMENT
from peak import peak_bytes
from PIL import Image

from hybridvit.card import ModelCard, Preprocessing
from hybridvit.cli.main import main
from hybridvit.data import inspect
from hybridvit.data.check import check_images
from hybridvit.data.check_contents import contents_of_folder
from hybridvit.data.crop import Crop, decode_crop
from hybridvit.data.decode import Decoded, decode, decode_image
from hybridvit.data.folder import ImageFolder
from hybridvit.data.preprocess import preprocess
from hybridvit.data.transforms import EvalTransform, TrainTransform
from hybridvit.errors import ImageDecodeError
from hybridvit.export import Runner

SIDE = 32
MOST_PIXELS = 1_000_000
MOST_SECONDS, MOST_GROWTH_MB = 1.0, 200.0
"""For one file, and of the peak memory over all of them: what 1,000,000 pixels and their copies take."""


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def rgba() -> Image.Image:
    """Smooth in one corner, noise in the other."""
    y, x = np.mgrid[:SIDE, :SIDE] * 8
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE))
    return Image.fromarray(np.stack([x, y, np.where(x > y, noise, 99), 255 - x // 2], -1).astype(np.uint8))


def corpus() -> dict[str, bytes]:
    """Every kind of file and of pixel that is read; file name -> content."""
    image = rgba()
    rgb, grey = image.convert("RGB"), image.convert("L")
    levels = Image.fromarray(np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE) * 63)
    frames = [rgb.rotate(90 * turn) for turn in range(3)]
    files = {
        "rgb.jpg": encode(rgb, "JPEG"),
        "progressive.jpg": encode(rgb, "JPEG", progressive=True),
        "grey.jpg": encode(grey, "JPEG"),
        "cmyk.jpg": encode(rgb.convert("CMYK"), "JPEG"),
        "rgb.png": encode(rgb, "PNG"),
        "rgba.png": encode(image, "PNG"),
        "grey_alpha.png": encode(image.convert("LA"), "PNG"),
        "palette.png": encode(rgb.convert("P"), "PNG", transparency=3),
        "bits.png": encode(grey.convert("1"), "PNG"),
        "deep.png": encode(levels, "PNG"),
        "animation.png": encode(frames[0], "PNG", save_all=True, append_images=frames[1:]),
        "animation.gif": encode(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "lossless.webp": encode(image, "WEBP", lossless=True),
        "animation.webp": encode(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        "rgb.bmp": encode(rgb, "BMP"),
        "lzw.tif": encode(rgb, "TIFF", compression="tiff_lzw"),
        "deep.tif": encode(levels, "TIFF"),
        "cmyk.tif": encode(rgb.convert("CMYK"), "TIFF"),
        "rgb.ppm": encode(rgb, "PPM"),
        "deep.pgm": encode(levels, "PPM"),
        "rgb.tga": encode(rgb, "TGA", compression="tga_rle"),
        "rgb.jp2": encode(rgb, "JPEG2000"),
        "rgb.avif": encode(rgb, "AVIF"),
    }
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        files[f"exif{orientation}.jpg"] = encode(rgb, "JPEG", exif=exif)
        files[f"exif{orientation}.png"] = encode(rgb, "PNG", exif=exif)
    return files


FUZZED = (
    "rgb.jpg", "progressive.jpg", "cmyk.jpg", "exif6.jpg", "rgba.png", "palette.png", "deep.png", "animation.gif",
    "lossless.webp", "rgb.bmp", "lzw.tif", "deep.pgm", "rgb.tga", "rgb.jp2", "rgb.avif",
)  # fmt: skip


def mutated(data: bytes, chance: random.Random) -> bytes:
    """One to six changes: bits, bytes, numbers in the header, pieces lost, doubled or put in, the end cut off."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        if not changed:
            break
        header = chance.random() < 0.5  # where most of the meaning is
        place = chance.randrange(min(len(changed), 64) if header else len(changed))
        length = chance.choice((1, 2, 4, 16))
        match chance.randrange(7):
            case 0:
                changed[place] ^= 1 << chance.randrange(8)
            case 1:
                changed[place : place + length] = chance.randbytes(length)
            case 2:
                changed[place : place + length] = chance.choice((b"\0", b"\xff", b"\x7f")) * length
            case 3:
                del changed[place : place + length]
            case 4:
                changed[place:place] = chance.randbytes(length)
            case 5:
                changed[place:place] = changed[place : place + 4 * length]
            case _:
                del changed[place:]
    return bytes(changed)


def attack(seed: int, number: int, keep_at: Path) -> dict[str, int]:
    """Decode that many mutations; the one under way lies in `keep_at`, so that even a crash can be replayed."""
    warnings.simplefilter("ignore")
    files = corpus()
    for name in FUZZED:
        decode(files[name])
    before = peak_bytes()
    counts = {"decoded": 0, "refused": 0}
    for index in range(number):
        name = FUZZED[index % len(FUZZED)]
        data = mutated(files[name], random.Random(f"{seed} {index}"))
        keep_at.write_bytes(data)
        began = time.process_time()
        try:
            if index % 3:
                image = decode_image(data, max_pixels=MOST_PIXELS)
            else:
                image = decode_crop(data, lambda size: Crop(0, 0, *size), (4, 4), max_pixels=MOST_PIXELS)
            assert image.mode == "RGB"
            assert np.asarray(image).dtype == np.uint8
            counts["decoded"] += 1
        except ImageDecodeError:
            counts["refused"] += 1
        assert time.process_time() - began < MOST_SECONDS, f"{name}, seed {seed}, mutation {index}: too slow"
    grown_mb = (peak_bytes() - before) / 2**20
    assert grown_mb < MOST_GROWTH_MB, f"memory grew by {grown_mb:.0f} MB"
    keep_at.unlink()
    return counts


@pytest.mark.parametrize("mutations", [6_000, pytest.param(30_000, marks=pytest.mark.nightly)])
def test_damaged_images_give_pixels_or_one_kind_of_error(tmp_path: Path, mutations: int) -> None:
    """To look at a failure again: decode_image(Path(the file named in the message).read_bytes())."""
    kept = [tmp_path / f"failing-{seed}" for seed in range(2)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        running = [pool.apply_async(attack, (seed, mutations // 2, kept[seed])) for seed in range(2)]
        results = []
        for run, file in zip(running, kept, strict=True):
            try:
                results.append(run.get(timeout=300))
            except Exception as error:
                content = file.read_bytes() if file.exists() else b""
                pytest.fail(
                    f"{type(error).__name__}: {error}; see {file}, {len(content)} bytes: {content[:64].hex()}..."
                )
    total = {word: sum(result[word] for result in results) for word in ("decoded", "refused")}
    assert sum(total.values()) == mutations
    assert min(total.values()) > mutations // 10  # else the mutations are too weak, or too strong, to find anything


def test_one_decoder_gives_the_same_pixels_in_every_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = corpus()
    files["white.png"] = encode(Image.new("RGBA", (SIDE, SIDE)), "PNG")
    root = tmp_path / "set"
    for folder in ("a", "b"):
        (root / folder).mkdir(parents=True)
    for number, (name, data) in enumerate(files.items()):
        (root / "ab"[number % 2] / name).write_bytes(data)
    preprocessing = Preprocessing(image_size=(SIDE, SIDE), crop_fraction=1.0)
    expected = {name: decode_image(data) for name, data in files.items()}
    assert {image.size for image in expected.values()} == {(SIDE, SIDE)}

    evaluated = ImageFolder(root, transform=EvalTransform(preprocessing))
    trained = ImageFolder(root, transform=TrainTransform(NO_AUGMENT, preprocessing), training=True)
    assert len(evaluated) == len(trained) == len(files)
    for index, path in enumerate(evaluated.paths):
        tensor = torch.from_numpy(preprocess(expected[Path(path).name], preprocessing))
        assert torch.equal(evaluated[index][0], tensor), path
        torch.testing.assert_close(trained[index][0], tensor, rtol=0, atol=1e-6)

    seen: dict[str, str] = {}

    def watched(source: object, *, name: str = "", **options: object) -> Decoded:
        decoded = decode(source, name=name, **options)
        seen[Path(name).name] = hashlib.sha256(decoded.image.tobytes()).hexdigest()
        return decoded

    monkeypatch.setattr(inspect, "decode", watched)
    assert check_images(contents_of_folder(str(root)), workers=0).num_bad == 0
    assert seen == {name: hashlib.sha256(image.tobytes()).hexdigest() for name, image in expected.items()}

    inputs: list[np.ndarray] = []

    class Watching(Runner):
        runtime = "none"
        card = ModelCard(architecture="none", preprocessing=preprocessing, class_names=("a", "b"))

        def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
            inputs.extend(images)
            return {"logits": np.zeros((len(images), 2), np.float32)}

    monkeypatch.setattr("hybridvit.predictor.open_runner", lambda *args, **options: Watching())
    assert main(["predict", "none.safetensors", str(root)]) == 0
    capsys.readouterr()
    for path, array in zip(evaluated.paths, inputs, strict=True):
        np.testing.assert_array_equal(array, preprocess(expected[Path(path).name], preprocessing), path)
