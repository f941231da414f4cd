"""What a file that is no usable image really is, in words for an error message."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile


@dataclass(frozen=True, kw_only=True)
class Format:
    """A kind of image file."""

    endings: tuple[str, ...]
    reader: str  # "module:class", imported when a file of this kind is met
    needs: str = ""  # the module without which it is not read, where that may be absent
    advice: str = ""  # how to come by that


# Opened by class rather than by Image.open, whose limit on pixels is one global warning for all threads.
FORMATS = {
    # an MPO of a camera is a JPEG with more of them behind it
    "JPEG": Format(endings=(".jpg", ".jpeg", ".jfif", ".jpe", ".mpo"), reader="PIL.JpegImagePlugin:JpegImageFile"),
    "PNG": Format(endings=(".png", ".apng"), reader="PIL.PngImagePlugin:PngImageFile"),
    "GIF": Format(endings=(".gif",), reader="PIL.GifImagePlugin:GifImageFile"),
    "WebP": Format(endings=(".webp",), reader="PIL.WebPImagePlugin:WebPImageFile", needs="PIL._webp"),
    "BMP": Format(endings=(".bmp",), reader="PIL.BmpImagePlugin:BmpImageFile"),
    "TIFF": Format(endings=(".tif", ".tiff"), reader="PIL.TiffImagePlugin:TiffImageFile"),
    "PNM": Format(endings=(".ppm", ".pgm", ".pbm", ".pnm"), reader="PIL.PpmImagePlugin:PpmImageFile"),
    "TGA": Format(endings=(".tga",), reader="PIL.TgaImagePlugin:TgaImageFile"),
    "JPEG 2000": Format(
        endings=(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"), reader="PIL.Jpeg2KImagePlugin:Jpeg2KImageFile"
    ),
    "AVIF": Format(
        endings=(".avif", ".avifs"),
        reader="PIL.AvifImagePlugin:AvifImageFile",
        needs="PIL._avif",
        advice="pip install --upgrade pillow",
    ),
    "HEIC": Format(
        endings=(".heic", ".heif", ".hif"),
        reader="pillow_heif:HeifImageFile",
        needs="pillow_heif",
        advice='pip install "hybridvit[heif]"',
    ),
}

VIDEO_ENDINGS = frozenset(
    (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".m2ts", ".3gp", ".wmv", ".flv", ".ogv")
)


@cache
def is_readable(kind: str) -> bool:
    """Whether what is installed reads files of this kind."""
    needed = FORMATS[kind].needs
    return not needed or find_spec(needed) is not None


@cache
def image_endings() -> frozenset[str]:
    """The endings that are taken for images: those of all kinds that can be read here."""
    return frozenset(ending for kind, each in FORMATS.items() if is_readable(kind) for ending in each.endings)


@cache
def reader_of(kind: str) -> "Callable[[IO[bytes]], ImageFile]":
    """What opens a file of this kind."""
    module, _, name = FORMATS[kind].reader.partition(":")
    return getattr(import_module(module), name)


def advice_on(ending: str) -> str:
    """How files with this ending could be read, if a package were installed, as the end of a list; else nothing."""
    for kind, each in FORMATS.items():
        if ending in each.endings and not is_readable(kind):
            return f"; to read {ending}: {each.advice}"
    return ""


def readable() -> str:
    """The kinds that can be read here, in words."""
    *most, last = filter(is_readable, FORMATS)
    return f"{', '.join(most)} or {last}"


HEAD_BYTES = 64  # of a file, that tell its kind
_AVIF_BRANDS = (b"avif", b"avis")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")


def image_format(head: bytes) -> str | None:
    """The key of `FORMATS` that a file's first `HEAD_BYTES` announce, or None if it is none of them."""
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp":
        return _of_brands(head)
    found = next((name for magic, name in _MAGIC if head.startswith(magic)), None)
    return "TGA" if found is None and _is_tga(head) else found


def _of_brands(head: bytes) -> str | None:
    """AVIF and HEIC are boxes of one kind; the brands that a file claims tell which, the first before the others."""
    length = min(struct.unpack(">I", head[:4])[0], HEAD_BYTES)
    brands = [head[8:12], *(head[start : start + 4] for start in range(16, length - 3, 4))]
    first = next((brand for brand in brands if brand in _AVIF_BRANDS), None)
    if first is not None and head[8:12] not in _HEIC_BRANDS[:-2]:
        return "AVIF"
    return "HEIC" if any(brand in _HEIC_BRANDS for brand in brands) else None


def _is_tga(head: bytes) -> bool:
    """Whether all that a TGA header can say is in the range of one: the format has no signature at its beginning."""
    if len(head) < 18:
        return False
    has_map, kind, map_start, map_length, map_bits = struct.unpack("<BBHHB", head[1:8])
    width, height, bits, flags = struct.unpack("<HHBB", head[12:18])
    is_mapped = kind in (1, 9)
    map_fits = (
        (map_bits in (15, 16, 24, 32) and map_length > 0) if has_map else not (map_start or map_length or map_bits)
    )
    bits_fit = bits in ((8,) if is_mapped else (1, 8, 16) if kind in (3, 11) else (15, 16, 24, 32))
    known = kind in (1, 2, 3, 9, 10, 11) and has_map == is_mapped and not flags & 0xC0
    return known and map_fits and bits_fit and width > 0 and height > 0


_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"\x00\x00\x00\x0cjP  \x0d\x0a\x87\x0a", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),  # the bare stream
    *((b"P%d" % digit, "PNM") for digit in range(1, 7)),
)


def describe(head: bytes) -> str:
    """What a file starting with `head` (up to 512 bytes) is, as the end of the sentence "the file is ..."."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "empty (0 bytes)"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the image it points to; run 'git lfs pull'"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "an HTML page, as a server sends in place of a file it does not have"
    if b"<svg" in text:
        return "an SVG drawing, which has no pixels; render it to PNG first"
    if text.startswith(b"<?xml"):
        return "an XML document"
    if head[4:8] == b"ftyp":
        return f"a video or an image of a kind without reader ({head[8:12].decode('latin-1').strip()})"
    for magic, name in _OTHER:
        if head.startswith(magic):
            return name
    if _is_text(head):
        start = head[:40].decode("utf-8", errors="ignore").split("\n")[0].strip()
        return f"text, beginning '{start}'"
    if not any(head):
        return "filled with zero bytes, as an interrupted copy leaves it"
    return "of an unknown kind"


_OTHER = (
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x93NUMPY", "a NumPy array; save it as PNG first"),
    (b"\x89HDF", "an HDF5 file"),
    (b"8BPS", "a Photoshop document; export it to PNG first"),
    (b"\xff\x0a", "a JPEG XL file; convert it to PNG first"),
    (b"\x00\x00\x01\x00", "an icon (ICO); convert it to PNG first"),
)


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # else only the last character is cut in half
            return False
        text = head[: error.start].decode("utf-8")
    return all(character.isprintable() or character in "\t\r\n" for character in text)


def bytes_missing(data: bytes) -> int | None:
    """How many bytes a cut-off file lacks at least, where its format says so; 0 if whole, None if unknown."""
    kind = image_format(data[:HEAD_BYTES])
    if kind == "PNG":
        return _png_missing(data)
    if kind == "WebP":
        return max(0, struct.unpack("<I", data[4:8])[0] + 8 - len(data))
    if kind == "BMP" and len(data) >= 6:
        return max(0, struct.unpack("<I", data[2:6])[0] - len(data))
    return None


def _png_missing(data: bytes) -> int:
    """Walk the chunks (length, type, data, checksum) to the one that runs past the end, or to IEND."""
    start = 8
    while start + 8 <= len(data):
        (length,) = struct.unpack(">I", data[start : start + 4])
        end = start + 12 + length
        if end > len(data):
            return end - len(data)
        if data[start + 4 : start + 8] == b"IEND":
            return 0
        start = end
    return start + 12 - len(data)
