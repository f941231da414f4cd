"""Words below a picture: all of them are there, however small the picture is and however long the words are."""

import numpy as np
import pytest
from PIL import Image, ImageFont

from hybridvit.strip import SMALLEST_PX, _lines, over_a_strip


@pytest.mark.parametrize(("width", "height"), [(8, 8), (1, 40), (300, 200), (159, 30), (40, 4000)])
@pytest.mark.parametrize("text", ["7 99.2 %", "Rhododendron " * 6 + "12 %", "x" * 200])
def test_no_word_is_cut(width: int, height: int, text: str) -> None:
    drawn = np.asarray(over_a_strip(Image.new("RGB", (width, height), "red"), text))
    times = -(-SMALLEST_PX // max(width, height))
    assert drawn.shape[1] == max(times * width, SMALLEST_PX)
    assert (drawn[: times * height, : times * width] == (255, 0, 0)).all()
    strip = drawn[times * height :]
    assert (strip < 128).any()
    assert (strip[:, -2:] == 255).all()  # nothing reaches the edge
    assert (strip[-1:] == 255).all()


@pytest.mark.parametrize("text", ["a few words", "w" * 90, "one " + "w" * 90 + " two", ""])
def test_lines_have_all_that_was_said(text: str) -> None:
    font = ImageFont.load_default(12)
    lines = list(_lines(text, font, 60.0))
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(font.getlength(line) <= 60.0 for line in lines)
