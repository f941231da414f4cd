"""Arrays as pictures: from dark to bright what cannot be negative, in red and blue what has a sign."""

import numpy as np
from PIL import Image, ImageDraw

SIDE_PX = 384  # the longer side of every picture
_BRIGHT = np.array([(13, 8, 60), (92, 24, 125), (184, 55, 100), (244, 120, 45), (252, 255, 164)], float)
_SIGNED = np.array([(20, 60, 160), (125, 165, 225), (245, 245, 245), (235, 145, 120), (165, 15, 35)], float)


def bright(values: np.ndarray) -> Image.Image:
    """An array of 0 to 1, from dark to bright."""
    return _coloured(values, _BRIGHT)


def signed(values: np.ndarray, *, middle: float = 0.0, reach: float | None = None) -> Image.Image:
    """Blue below and red above `middle`, which is white; the same scale on both sides, to `reach` or the largest."""
    scale = (np.abs(values - middle).max() if reach is None else reach) or 1.0
    return _coloured(0.5 + 0.5 * (values - middle) / scale, _SIGNED)


def logarithmic(values: np.ndarray, *, decades: float = 4.0) -> Image.Image:
    """Shares on a scale of that many powers of ten below the largest."""
    largest = values.max() or 1.0
    return bright(1 + np.log10(np.clip(values / largest, 10.0**-decades, 1)) / decades)


def over(picture: Image.Image, shades: Image.Image, *, opacity: float = 0.55) -> Image.Image:
    """A small map, smoothed, over the whole of a picture."""
    base = enlarged(picture, smooth=True)
    return Image.blend(base, shades.resize(base.size, Image.Resampling.BICUBIC), opacity)


def enlarged(picture: Image.Image, *, smooth: bool = False) -> Image.Image:
    """In the size of the page; without `smooth` with visible squares."""
    factor = SIDE_PX / max(picture.size)
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    return picture.convert("RGB").resize(size, Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST)


def with_mark(picture: Image.Image, row: float, column: float) -> Image.Image:
    """A ring at a place, in shares of height and width."""
    marked, radius = picture.copy(), 7
    x, y = column * picture.width, row * picture.height
    box = (x - radius, y - radius, x + radius, y + radius)
    draw = ImageDraw.Draw(marked)
    draw.ellipse(box, outline="black", width=4)
    draw.ellipse(box, outline="white", width=2)
    return marked


def with_lines(picture: Image.Image, share: float) -> Image.Image:
    """A line from side to side and from top to bottom, after that share of the picture."""
    lined = picture.copy()
    draw, x, y = ImageDraw.Draw(lined), share * picture.width, share * picture.height
    draw.line((x, 0, x, picture.height), fill="white", width=2)
    draw.line((0, y, picture.width, y), fill="white", width=2)
    return lined


def in_rows(pictures: list[Image.Image], columns: int, *, gap_px: int = 6) -> Image.Image:
    """Pictures of one size in rows of so many, white between them, as one."""
    width, height = pictures[0].size
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (width + gap_px) - gap_px, rows * (height + gap_px) - gap_px), "white")
    for place, each in enumerate(pictures):
        sheet.paste(each, (place % columns * (width + gap_px), place // columns * (height + gap_px)))
    return sheet


def beside(left: Image.Image, right: Image.Image, *, gap_px: int = 24) -> Image.Image:
    """Two pictures of any sizes, white between and below them, as one."""
    sheet = Image.new("RGB", (left.width + gap_px + right.width, max(left.height, right.height)), "white")
    sheet.paste(left, (0, 0))
    sheet.paste(right, (left.width + gap_px, 0))
    return sheet


def _coloured(values: np.ndarray, colours: np.ndarray) -> Image.Image:
    places = np.linspace(0, 1, len(colours))
    clipped = np.clip(values, 0, 1)
    channels = [np.interp(clipped, places, colours[:, channel]) for channel in range(3)]
    return Image.fromarray(np.stack(channels, -1).round().astype(np.uint8))
