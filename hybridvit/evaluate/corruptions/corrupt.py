"""One corrupted picture: equal pixels for equal (seed, corruption, severity, key), in any process and order."""

import hashlib
from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image

from hybridvit.data.decode import ImageChange
from hybridvit.data.scan import relative
from hybridvit.data.seeding import generators_kept
from hybridvit.errors import SourceFault, UsageError, one_line
from hybridvit.evaluate.corruptions.elastic import elastic_transform
from hybridvit.evaluate.corruptions.frost import frost
from hybridvit.evaluate.corruptions.names import ALL, SEVERITIES

MIN_SIDE_PX = 32  # the package refuses less
SEEDED_APART = frozenset(("impulse_noise", "glass_blur"))
"""They draw from generators of their own (scikit-image's, Numba's), which NumPy's seed does not reach."""
OWN = {"elastic_transform": elastic_transform, "frost": frost}
"""Those of which the package has another function, or other textures, than ImageNet-C was made with."""


def seed_of(name: str, severity: int, key: str, *, seed: int = 0) -> int:
    """32 bits for one picture: the first of the SHA-256 of what it depends on."""
    text = "\0".join((str(seed), name, str(severity), key))
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:4], "big")


def corrupt(image: Image.Image, name: str, severity: int, key: str, *, seed: int = 0) -> Image.Image:
    """A corrupted copy of a picture of any size from 32 px, as RGB.

    `key` names the picture among others, such as its path in its folder. Bytes are truncated, not rounded, as
    ImageNet-C's were. NumPy's global generator is put back to where it was. The parameters are those of Hendrycks and
    Dietterich (2019) for 224 px, in pixels: on other sizes a severity means something else.

    Raises UsageError for an unknown name or severity, and where the extra `robustness` is missing or broken;
    DatasetError for a picture that is too small, which is a fault of the whole set.
    """
    if name not in ALL or severity not in SEVERITIES:
        raise UsageError(f"There is no corruption '{name}' of severity {severity}. Names are {', '.join(ALL)}; 1 to 5.")
    if min(image.size) < MIN_SIDE_PX:
        raise SourceFault(
            f"{key} is {image.width}x{image.height}, but pictures to corrupt need {MIN_SIDE_PX} pixels on each side: "
            "the parameters are in pixels. Write them with `hybridvit corrupt`, which enlarges, and evaluate on those."
        )
    package = opened_package()
    pixels = np.asarray(image.convert("RGB"))
    own_seed = seed_of(name, severity, key, seed=seed)
    if name in OWN:
        return Image.fromarray(OWN[name](pixels, severity, np.random.RandomState(own_seed)))
    apart = {"seed": own_seed} if name in SEEDED_APART else {}
    with generators_kept():
        np.random.seed(own_seed)
        return Image.fromarray(package(pixels, severity=severity, corruption_name=name, **apart))


class Corruption(ImageChange):
    """One corruption at one severity, as a change of every picture of a data set. Can be sent to other processes."""

    def __init__(self, name: str, severity: int, *, root: str, seed: int = 0) -> None:
        """`root` is the folder of the data set: where it lies changes no pixel."""
        self.name, self.severity, self.root, self.seed = name, severity, root, seed

    def __call__(self, image: Image.Image, path: str) -> Image.Image:
        return corrupt(image, self.name, self.severity, relative(path, self.root), seed=self.seed)


@cache
def opened_package() -> Callable[..., np.ndarray]:
    """The package's own function; worth asking for before the work.

    Raises UsageError where the extra `robustness` is missing or cannot be imported.
    """
    try:
        import cv2
        from imagecorruptions import corrupt as function
    except ModuleNotFoundError as error:
        raise UsageError(
            f"Corrupting pictures needs the package imagecorruptions-imaug ({one_line(error)}). "
            'Run: pip install "hybridvit[robustness]".'
        ) from error
    except ImportError as error:
        if "libGL" not in str(error):
            raise UsageError(
                f"The package imagecorruptions-imaug cannot be imported ({one_line(error)}). "
                'Run: pip install --upgrade "hybridvit[robustness]".'
            ) from error
        raise UsageError(
            f"OpenCV needs a library of the system that is missing ({one_line(error)}). Run: apt-get install libgl1. "
            "Or put opencv-python-headless in its place: pip uninstall opencv-python, then pip install "
            "--force-reinstall opencv-python-headless."
        ) from error
    cv2.setNumThreads(1)  # one picture at a time: its threads would outnumber the cores beside the workers
    return function
