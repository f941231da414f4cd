"""Photos that live inside the page, as small PNGs."""

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

from hybridvit.card import Preprocessing
from hybridvit.data.decode import decode_image
from hybridvit.errors import HybridViTError

if TYPE_CHECKING:
    from hybridvit.data.samples import Samples

THUMBNAIL_PX = 128
WIDE = 2.5  # times as wide as high: pictures side by side
MOST_ABREAST = 4  # thumbnails


def find_picture(samples: "Samples", number: int, preprocessing: Preprocessing) -> Path | Image.Image | None:
    """The picture of a sample, to look at: the file if it is one, else what the model is shown.

    None if neither can be had: a page goes without a picture rather than not at all.
    """
    path = Path(samples.paths[number])
    if path.is_file() and preprocessing.levels is None:
        return path
    try:
        if path.is_file():
            return decode_image(path, levels=preprocessing.levels)
        pixels = samples[number][0]  # c h w
    except (HybridViTError, OSError):
        return None
    import torch  # not for a page of answers, which exported files give without it

    mean, std = (torch.tensor(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    levels = ((pixels * std + mean).clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).numpy())  # h w c


class Photo(NamedTuple):
    """A picture as a page holds it."""

    address: str  # data:
    is_wide: bool  # a row of pictures, which has the room of several


def photo(image: Path | Image.Image) -> Photo:
    """Large images reduced to THUMBNAIL_PX, of a wide one the height; tiny ones with visible pixels."""
    picture = decode_image(image) if isinstance(image, Path) else image
    is_wide = picture.width >= WIDE * picture.height
    width_px = THUMBNAIL_PX * (MOST_ABREAST if is_wide else 1)
    times = min(width_px // picture.width, THUMBNAIL_PX // picture.height)
    if times > 1:  # else the browser would blur what the model saw
        picture = picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
    else:
        picture = picture.copy()
        picture.thumbnail((width_px, THUMBNAIL_PX))
    return Photo(data_address(png(picture)), is_wide)


def png(picture: Image.Image) -> bytes:
    """A picture as the bytes of a file."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")  # optimize=True takes ten times as long for the same size
    return buffer.getvalue()


def data_address(encoded: bytes) -> str:
    """The bytes of a PNG as the address of a picture that lies in the page."""
    return "data:image/png;base64," + base64.b64encode(encoded).decode()
