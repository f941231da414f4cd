"""HEIC files are read where pillow-heif is installed; elsewhere every message that meets one names the extra."""

import re
import sys

import numpy as np
import pytest
from PIL import Image
from shard_sets import png, write_tar

from hybridvit.data import file_kind
from hybridvit.data.decode import decode_image
from hybridvit.data.listing import scan_folder
from hybridvit.data.scan import find_images
from hybridvit.data.shards.scan import index_folder
from hybridvit.errors import DatasetError, ImageDecodeError

HEIC = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic"


@pytest.fixture
def without_heif(monkeypatch):
    """As where pillow-heif is not installed."""
    asked = (file_kind.is_readable, file_kind.image_endings)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for each in asked:
        each.cache_clear()
    yield
    monkeypatch.undo()
    for each in asked:
        each.cache_clear()


def test_a_heic_names_the_extra_that_reads_it(tmp_path, without_heif):
    path = tmp_path / "set" / "cat" / "photo.heic"
    path.parent.mkdir(parents=True)
    path.write_bytes(HEIC)
    fix = r'to read \.heic: pip install "hybridvit\[heif\]"'
    with pytest.raises(ImageDecodeError, match=r'photo\.heic: this is an image of kind HEIC.*"hybridvit\[heif\]"'):
        decode_image(path)
    with pytest.raises(DatasetError, match=rf"'{path.parent}' has no file that ends in .*\.webp; {fix}\. Give image"):
        find_images([path.parent])
    with pytest.raises(DatasetError, match=rf"matches no image; {fix}\. Give image"):
        find_images([path.with_name("*.heic")])
    with pytest.raises(DatasetError, match=rf"'cat' has no images .* ends in .*\.webp; {fix}\. Add images"):
        scan_folder(tmp_path / "set")
    Image.new("RGB", (4, 4)).save(path.with_name("a.png"))
    said = []
    assert find_images([path.parent], say=said.append) == [path.with_name("a.png")]
    assert said[0].endswith('(.heic 1; to read .heic: pip install "hybridvit[heif]").')


def test_a_heic_in_a_tar_file_names_the_extra_that_reads_it(tmp_path, without_heif):
    write_tar(tmp_path / "a.tar", {"1.heic": HEIC, "1.cls": b"0"})
    fix = r'to read \.heic: pip install "hybridvit\[heif\]"'
    with pytest.raises(DatasetError, match=rf"a\.tar has no images: .* \.webp; {fix}\."):
        index_folder(tmp_path)
    write_tar(tmp_path / "a.tar", {"1.heic": HEIC, "1.cls": b"0", "2.png": png(2), "2.cls": b"1"})
    said = []
    index_folder(tmp_path, say=said.append)
    assert re.search(rf"1 sample without an image, of .*{tmp_path.name}; {fix}$", said[0])


def test_what_cannot_be_read_here_is_not_among_what_can(tmp_path, without_heif):
    assert file_kind.readable().endswith("JPEG 2000 or AVIF")
    assert not {".heic", ".heif", ".hif"} & file_kind.image_endings()
    with pytest.raises(
        ImageDecodeError, match=r"no image that can be read \(JPEG, .*, JPEG 2000 or AVIF\): the file is"
    ):
        decode_image(b"words")


def test_a_heic_is_read_where_the_extra_is_installed(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif", reason="the extra heif is not installed")
    picture = Image.fromarray(np.full((20, 30, 3), (200, 90, 30), np.uint8))
    path = tmp_path / "photo.heic"
    pillow_heif.from_pillow(picture).save(path, quality=95)
    assert find_images([tmp_path]) == [path]
    np.testing.assert_allclose(np.asarray(decode_image(path)).astype(int), np.asarray(picture), atol=12)
    with pytest.raises(ImageDecodeError, match="HEIC image is damaged"):
        decode_image(path.read_bytes()[:400])
