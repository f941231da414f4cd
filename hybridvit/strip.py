"""An answer that lies nowhere in its picture, written below it. Needs Pillow only."""

from collections.abc import Iterator

from PIL import Image, ImageDraw, ImageFont

SMALLEST_PX = 160  # of the width of what is drawn: words need some room


def over_a_strip(picture: Image.Image, text: str) -> Image.Image:
    """A copy of the picture over a white strip with the text, in as many lines as it takes.

    Of a picture with no side of SMALLEST_PX each pixel becomes a square.
    """
    times = -(-SMALLEST_PX // max(picture.size))
    shown = picture.resize((times * picture.width, times * picture.height), Image.Resampling.NEAREST)
    width = max(shown.width, SMALLEST_PX)
    size = max(12, min(shown.height, 2 * width) // 20)
    font, line, margin = ImageFont.load_default(size), round(1.25 * size), size // 3
    lines = list(_lines(text, font, width - 2 * margin))
    drawn = Image.new("RGB", (width, shown.height + line * len(lines) + size // 4), "white")
    drawn.paste(shown, (0, 0))
    pen = ImageDraw.Draw(drawn)
    for number, words in enumerate(lines):
        pen.text((margin, shown.height + number * line + size // 8), words, fill="black", font=font)
    return drawn


def _lines(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: float) -> Iterator[str]:
    """`text` in lines that are no wider; a word that is wider itself is broken."""
    line = ""
    for word in text.split():
        if line and font.getlength(f"{line} {word}") > width_px:
            yield line
            line = ""
        line = f"{line} {word}".lstrip()
        while font.getlength(line) > width_px and len(line) > 1:
            fitting = (end for end in range(len(line) - 1, 1, -1) if font.getlength(line[:end]) <= width_px)
            most = next(fitting, 1)
            yield line[:most]
            line = line[most:]
    yield line
