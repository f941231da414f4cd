"""What a file that is no usable image really is, in words for an error message."""

import struct

READABLE = "JPEG, PNG, GIF, WebP, BMP, TIFF or PNM"


def image_format(head: bytes) -> str | None:
    """The name of the image format a file's first 16 bytes announce, or None if it is not one we read."""
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WebP"
    return next((name for magic, name in _MAGIC if head.startswith(magic)), None)


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
        return f"a HEIC, AVIF or video file ({head[8:12].decode('latin-1').strip()}); convert it to PNG or JPEG first"
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
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 file; convert it to PNG first"),
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
    kind = image_format(data[:16])
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
