"""Corruptions: their parameters shown by what they do to pictures, and their seeds."""

import io
import math
from importlib.resources import files

import numpy as np
import pytest
from PIL import Image

from hybridvit.errors import DatasetError, UsageError
from hybridvit.evaluate.corruptions.names import ALL, COMMON, SEVERITIES, checked_severities, chosen

REASON = "the extra 'robustness' is not installed, or the system lacks the libGL.so.1 that its OpenCV needs"
SIDE = 224


@pytest.fixture
def corrupted():
    """(pixels, name, severity, key="picture") -> pixels as float64."""
    pytest.importorskip("imagecorruptions", reason=REASON, exc_type=ImportError)
    from hybridvit.evaluate.corruptions.corrupt import corrupt

    def change(pixels: np.ndarray, name: str, severity: int, key: str = "picture") -> np.ndarray:
        return np.asarray(corrupt(Image.fromarray(pixels), name, severity, key), np.float64)

    return change


def grey(level: int = 128, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def noise_picture(height: int = SIDE, width: int = SIDE) -> np.ndarray:
    """Smooth colours with some texture."""
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(rows / (9 + 4 * channel)) + np.cos(columns / (7 + 5 * channel)) for channel in range(3)]
    return (np.stack(waves, -1) * 50 + 128).astype(np.uint8)


def clipped_std(mean: float, sigma: float) -> float:
    """Of clip(mean + sigma z, 0, 1) with a normal z, by quadrature, in levels of 255."""
    z = np.linspace(-8, 8, 200_001)
    weights = np.exp(-z * z / 2)
    values = np.clip(mean + sigma * z, 0, 1)
    centre = np.average(values, weights=weights)
    return 255 * math.sqrt(np.average((values - centre) ** 2, weights=weights))


def test_there_are_fifteen_corruptions_of_the_mean_and_four_more():
    assert len(COMMON) == 15
    assert len(ALL) == 19
    assert chosen(["noise", "fog", "gaussian_noise"]) == ("gaussian_noise", "shot_noise", "impulse_noise", "fog")
    assert chosen(["all"]) == ALL


@pytest.mark.parametrize(
    ("words", "severities", "told"),
    [
        (["gausian_noise"], [1], "There is no corruption 'gausian_noise'. Nearest: 'gaussian_noise'"),
        ([], [1], "--corruptions names none"),
        (["fog"], [0], "--severities has 0, but severities are 1"),
        (["fog"], [2, 2], "same one twice"),
        (["fog"], [], "names none"),
    ],
)
def test_unknown_names_and_severities_are_one_error(words, severities, told):
    with pytest.raises(UsageError) as error:
        chosen(words), checked_severities(severities)
    assert told in str(error.value)


@pytest.mark.parametrize("name", ALL)
def test_equal_keys_give_equal_pixels_and_numpys_state_is_kept(corrupted, name):
    picture = noise_picture(64, 48)  # neither square nor of the usual size
    np.random.seed(7)
    before = np.random.get_state()[1].copy()
    for severity in SEVERITIES:
        once, again = (corrupted(picture, name, severity, "class/one.png") for _ in range(2))
        assert once.shape == picture.shape
        assert np.array_equal(once, again)
        assert not np.array_equal(once, picture)
    assert np.array_equal(np.random.get_state()[1], before)


RANDOM = [name for name in ALL if name not in
          ("defocus_blur", "zoom_blur", "gaussian_blur", "brightness", "contrast", "pixelate", "jpeg_compression",
           "saturate")]  # fmt: skip


@pytest.mark.parametrize("name", RANDOM)
def test_each_picture_has_random_numbers_of_its_own(corrupted, name):
    picture = noise_picture(64, 64)
    assert not np.array_equal(corrupted(picture, name, 3, "a.png"), corrupted(picture, name, 3, "b.png"))


@pytest.mark.parametrize(("severity", "sigma"), list(zip(SEVERITIES, (0.08, 0.12, 0.18, 0.26, 0.38), strict=True)))
def test_gaussian_noise_has_its_deviation(corrupted, severity, sigma):
    found = corrupted(grey(), "gaussian_noise", severity)
    assert found.std() == pytest.approx(clipped_std(128 / 255, sigma), rel=0.01)
    assert abs(found.mean() - 128) < 1


@pytest.mark.parametrize(("severity", "rate"), list(zip(SEVERITIES, (60, 25, 12, 5, 3), strict=True)))
def test_shot_noise_is_poisson_of_its_rate(corrupted, severity, rate):
    found = corrupted(grey(64), "shot_noise", severity) / 255
    drawn = np.minimum(np.random.RandomState(0).poisson(64 / 255 * rate, 200_000) / rate, 1)
    assert found.std() == pytest.approx(drawn.std(), rel=0.02)
    assert found.mean() == pytest.approx(drawn.mean(), abs=0.005)


@pytest.mark.parametrize(("severity", "share"), list(zip(SEVERITIES, (0.03, 0.06, 0.09, 0.17, 0.27), strict=True)))
def test_impulse_noise_turns_its_share_black_or_white(corrupted, severity, share):
    found = corrupted(grey(), "impulse_noise", severity)
    assert np.isin(found, (0, 127, 128, 255)).all()
    assert (found == 0).mean() == pytest.approx(share / 2, rel=0.06)
    assert (found == 255).mean() == pytest.approx(share / 2, rel=0.06)


@pytest.mark.parametrize(("severity", "sigma"), list(zip(SEVERITIES, (0.15, 0.2, 0.35, 0.45, 0.6), strict=True)))
def test_speckle_noise_grows_with_brightness(corrupted, severity, sigma):
    for level in (64, 128):
        found = corrupted(grey(level), "speckle_noise", severity)
        assert found.std() == pytest.approx(clipped_std(level / 255, level / 255 * sigma), rel=0.02)


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("name", ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "gaussian_blur",
                                  "elastic_transform", "pixelate"])  # fmt: skip
def test_kernels_sum_to_one_so_that_an_even_picture_stays(corrupted, name, severity):
    assert np.abs(corrupted(grey(140), name, severity) - 140).max() <= 1


@pytest.mark.parametrize(("severity", "sigma"), list(zip(SEVERITIES, (1, 2, 3, 4, 6), strict=True)))
def test_gaussian_blur_spreads_an_edge_by_its_sigma(corrupted, severity, sigma):
    edge = grey(0)
    edge[:, SIDE // 2 :] = 255
    slope = np.diff(corrupted(edge, "gaussian_blur", severity)[100, :, 0]) / 255
    places = np.arange(len(slope))
    centre = np.average(places, weights=slope)
    assert math.sqrt(np.average((places - centre) ** 2, weights=slope)) == pytest.approx(sigma, rel=0.06)


@pytest.mark.parametrize(("severity", "radius"), list(zip(SEVERITIES, (3, 4, 6, 8, 10), strict=True)))
def test_defocus_is_a_disk_of_its_radius(corrupted, severity, radius):
    point = grey(0)
    point[100:103, 100:103] = 255  # one pixel would be too dark in bytes
    found = corrupted(point, "defocus_blur", severity)[..., 0]
    rows, columns = np.nonzero(found)
    assert np.hypot(rows - 101, columns - 101).max() <= radius + 1.5 + 3
    assert np.hypot(rows - 101, columns - 101).max() >= radius - 0.5
    lost = (found > 0).sum()  # truncation takes up to one level of each pixel
    assert 9 * 255 - lost <= found.sum() <= 9 * 255 + 1


@pytest.mark.parametrize(("severity", "added"), list(zip(SEVERITIES, (0.1, 0.2, 0.3, 0.4, 0.5), strict=True)))
def test_brightness_adds_to_the_value(corrupted, severity, added):
    assert corrupted(grey(64), "brightness", severity).mean() == pytest.approx(64 + 255 * added, abs=1)


@pytest.mark.parametrize(("severity", "factor"), list(zip(SEVERITIES, (0.4, 0.3, 0.2, 0.1, 0.05), strict=True)))
def test_contrast_keeps_means_and_scales_deviations(corrupted, severity, factor):
    picture = noise_picture()
    found = corrupted(picture, "contrast", severity)
    assert found.mean((0, 1)) == pytest.approx(picture.mean((0, 1)), abs=1)
    assert found.std((0, 1)) == pytest.approx(picture.std((0, 1)) * factor, abs=0.3)


@pytest.mark.parametrize(("severity", "quality"), list(zip(SEVERITIES, (25, 18, 15, 10, 7), strict=True)))
def test_jpeg_is_pillows_of_its_quality(corrupted, severity, quality):
    picture, buffer = noise_picture(), io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    assert np.array_equal(corrupted(picture, "jpeg_compression", severity), np.asarray(Image.open(buffer)))


@pytest.mark.parametrize(("severity", "share"), list(zip(SEVERITIES, (0.6, 0.5, 0.4, 0.3, 0.25), strict=True)))
def test_pixelate_keeps_its_share_of_pixels(corrupted, severity, share):
    picture = Image.fromarray(noise_picture())
    small = picture.resize((int(SIDE * share), int(SIDE * share)), Image.Resampling.BOX)
    wanted = small.resize((SIDE, SIDE), Image.Resampling.NEAREST)
    assert np.abs(corrupted(np.asarray(picture), "pixelate", severity) - np.asarray(wanted)).mean() < 0.5


@pytest.mark.parametrize(("severity", "largest"), list(zip(SEVERITIES, (1.11, 1.16, 1.21, 1.26, 1.31), strict=True)))
def test_zoom_blur_smears_to_its_largest_zoom_and_no_further(corrupted, severity, largest):
    ring = grey(0)
    distance = np.abs(np.arange(SIDE) - (SIDE - 1) / 2)
    ring[:, (distance > 40) & (distance < 50)] = 255  # two stripes
    row = corrupted(ring, "zoom_blur", severity)[SIDE // 2, :, 0]
    reach = distance[row > 5].max()
    assert 50 * (largest - 0.06) < reach < 50 * largest + 3
    assert distance[row > 5].min() > 38


@pytest.mark.parametrize(("severity", "factor", "added"),
                         [(1, 0.3, 0), (2, 0.1, 0), (3, 2, 0), (4, 5, 0.1), (5, 20, 0.2)])  # fmt: skip
def test_saturate_scales_saturations(corrupted, severity, factor, added):
    colour = np.broadcast_to(np.array([150, 138, 144], np.uint8), (64, 64, 3)).copy()
    found = corrupted(colour, "saturate", severity)[0, 0]
    wanted = min(1, (150 - 138) / 150 * factor + added)
    assert 1 - found.min() / found.max() == pytest.approx(wanted, abs=0.02)


@pytest.mark.parametrize(("severity", "kept", "added"),
                         [(1, 1, 0.4), (2, 0.8, 0.6), (3, 0.7, 0.7), (4, 0.65, 0.7), (5, 0.6, 0.75)])  # fmt: skip
def test_frost_adds_its_share_of_one_of_five_textures(corrupted, severity, kept, added):
    black, even = (corrupted(grey(level), "frost", severity) for level in (0, 60))
    assert black.max() <= 255 * added
    assert black.std() > 1
    assert np.abs(even - np.minimum(255, black + kept * 60)).max() <= 1


def test_frost_takes_each_of_the_first_five_textures_and_no_other(corrupted):
    import cv2

    folder = files("imagecorruptions") / "frost"
    names = sorted(each.name for each in folder.iterdir() if each.name.startswith("frost"))
    textures = {name: cv2.imread(str(folder / name), cv2.IMREAD_GRAYSCALE) for name in names}
    assert len(textures) == 6  # of which ImageNet-C has five
    found = set[str]()
    for key in range(30):
        ice = cv2.cvtColor(corrupted(grey(0, 64, 64), "frost", 5, str(key)).astype(np.uint8), cv2.COLOR_RGB2GRAY)
        likeness = {
            name: cv2.matchTemplate(texture, ice, cv2.TM_CCOEFF_NORMED).max() for name, texture in textures.items()
        }
        here = {name for name, value in likeness.items() if value > 0.95}  # a part of it, only darker; 2 and 3 overlap
        assert here
        found |= here
    assert found == {"frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg"}


def test_frost_enlarges_a_texture_that_is_too_small(corrupted):
    assert corrupted(grey(0, 700, 1000), "frost", 3).shape == (700, 1000, 3)


@pytest.mark.parametrize(("severity", "strength_px", "sigma_px", "reach_px"),
                         [(3, 12.2, 2.44, 4.88), (4, 17.08, 2.44, 4.88), (5, 29.28, 2.44, 4.88)])  # fmt: skip
def test_elastic_moves_pixels_by_its_field_and_its_affine_part(corrupted, severity, strength_px, sigma_px, reach_px):
    rows, columns = np.mgrid[:SIDE, :SIDE]
    ramp = np.repeat(columns[..., None], 3, -1).astype(np.uint8)
    moved = (corrupted(ramp, "elastic_transform", severity)[..., 0] - columns)[40:-40, 40:-40]
    known = np.stack([np.ones(moved.size), rows[40:-40, 40:-40].ravel(), columns[40:-40, 40:-40].ravel()], 1)
    plane, *_ = np.linalg.lstsq(known, moved.ravel(), rcond=None)
    field = strength_px * math.sqrt(1 / 3) / (2 * math.sqrt(math.pi) * sigma_px)
    expected = math.hypot(field, math.sqrt(1 / 12))  # and the truncation to bytes
    assert (moved.ravel() - known @ plane).std() == pytest.approx(expected, rel=0.12)
    assert np.abs(plane[1:]).max() * 2 * (SIDE // 3) <= 2 * reach_px + 1
    assert np.abs(plane[1:]).max() > 1e-3


def test_elastic_at_its_first_severities_is_a_large_smooth_move(corrupted):
    picture = noise_picture()
    changes = [np.abs(corrupted(picture, "elastic_transform", severity) - picture).mean() for severity in (1, 2)]
    assert min(changes) > 10


@pytest.mark.parametrize(("severity", "thick"), list(zip(SEVERITIES, (1.5, 2.0, 2.5, 2.5, 3.0), strict=True)))
def test_fog_brightens_within_the_pictures_largest_level(corrupted, severity, thick):
    found = corrupted(grey(128), "fog", severity)
    assert found.max() <= 128
    assert found.min() >= 128 * (128 / 255) / (128 / 255 + thick) - 1
    assert found.std() > 3


@pytest.mark.parametrize("name", ["snow", "spatter", "motion_blur", "glass_blur"])
def test_what_is_random_in_shape_grows_with_severity(corrupted, name):
    picture = noise_picture()
    changes = [
        np.mean([np.abs(corrupted(picture, name, severity, str(key)) - picture).mean() for key in range(3)])
        for severity in (1, 5)
    ]
    assert changes[1] > 1.15 * changes[0] > 0


def test_pictures_that_are_too_small_are_one_error(corrupted):
    with pytest.raises(DatasetError, match=r"one\.png is 24x40, but pictures to corrupt need 32 pixels on each side"):
        corrupted(grey(0, 40, 24), "fog", 1, "one.png")
