"""Where a picture is decoded: a small one at once, one that a few bytes make large never where all requests wait."""

import asyncio
import threading
from io import BytesIO

import pytest
from PIL import Image

import hybridvit
from hybridvit.serve import uploads
from hybridvit.serve.limits import Limits
from hybridvit.serve.refusals import TooManyPixels
from hybridvit.serve.uploads import SMALL_BYTES, DecodePool

CARD = hybridvit.create_model("fastvit_debug", num_classes=3).card


def png(side: int) -> bytes:
    """A picture of one colour, which has few bytes whatever its size."""
    file = BytesIO()
    Image.new("RGB", (side, side), "red").save(file, "PNG")
    assert len(file.getvalue()) < SMALL_BYTES
    return file.getvalue()


@pytest.mark.parametrize(("side", "is_at_once"), [(28, True), (128, True), (129, False), (1000, False)])
def test_the_size_in_the_head_decides_who_decodes(side: int, is_at_once: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []
    decode = uploads.preprocess
    monkeypatch.setattr(uploads, "preprocess", lambda *words: threads.append(threading.get_ident()) or decode(*words))
    pool = DecodePool(Limits())
    prepared = asyncio.run(pool.prepare(png(side), CARD))
    pool.close()
    assert prepared.size == (side, side)
    assert [each == threading.get_ident() for each in threads] == [is_at_once]


def test_a_small_picture_is_still_refused_by_a_lower_limit() -> None:
    pool = DecodePool(Limits(max_pixels=500))
    with pytest.raises(TooManyPixels, match="at most 500 are decoded"):
        asyncio.run(pool.prepare(png(28), CARD))
    pool.close()
