"""An answer that lies nowhere in its picture, written below it. Needs Pillow only."""

from PIL import Image, ImageDraw, ImageFont


def over_a_strip(picture: Image.Image, text: str) -> Image.Image:
    """A copy of the picture over a white strip with the text."""
    size = max(12, picture.height // 20)
    strip = round(1.5 * size)
    drawn = Image.new("RGB", (picture.width, picture.height + strip), "white")
    drawn.paste(picture, (0, 0))
    ImageDraw.Draw(drawn).text(
        (strip // 4, picture.height + strip // 8), text, fill="black", font=ImageFont.load_default(size)
    )
    return drawn
