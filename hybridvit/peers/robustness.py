"""Published robustness: AlexNet's errors under corruption, and top-1 of models on the suites, in %.

AlexNet: hendrycks/robustness, issue 10 (torchvision's weights). Of models: FastViT Table 7, FasterViT Table S.2, and
timm's results/*.csv (Apache-2.0) at commit aa4b5850 of 2026-08-08, at 256 px with a crop of 0.9 (ma36 0.95).
"""

from collections.abc import Mapping
from types import MappingProxyType

ALEXNET_CLEAN_ERROR = 0.4348

_ALEXNET_PERCENT = {
    "gaussian_noise": (69.528, 82.542, 93.554, 98.138, 99.452),
    "shot_noise": (71.224, 85.108, 93.574, 98.182, 99.146),
    "impulse_noise": (78.374, 89.808, 94.870, 98.720, 99.548),
    "defocus_blur": (65.624, 73.202, 85.036, 91.364, 94.714),
    "glass_blur": (64.308, 75.054, 88.806, 91.622, 93.344),
    "motion_blur": (58.430, 70.048, 82.108, 89.750, 92.638),
    "zoom_blur": (70.008, 76.992, 80.784, 84.198, 87.198),
    "snow": (71.726, 88.392, 86.468, 91.870, 94.952),
    "frost": (61.390, 79.734, 88.790, 89.942, 93.430),
    "fog": (67.474, 76.050, 84.378, 87.260, 94.500),
    "brightness": (45.140, 48.502, 54.048, 62.166, 72.440),
    "contrast": (64.548, 76.150, 88.874, 97.760, 99.270),
    "elastic_transform": (52.596, 70.116, 55.686, 64.076, 80.554),
    "pixelate": (52.218, 54.620, 73.728, 87.092, 91.262),
    "jpeg_compression": (51.002, 54.718, 57.294, 65.458, 74.778),
}
ALEXNET_ERRORS: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {name: tuple(error / 100 for error in errors) for name, errors in _ALEXNET_PERCENT.items()}
)
"""By corruption, at severities 1 to 5, from 0 to 1."""

_SUITES = ("imagenet", "v2-matched", "real", "a", "r", "sketch")
_TIMM = {
    "fastvit_t8": ((76.18, 64.69, 83.24, 6.80, 37.16, 25.85), (77.17, 65.38, 84.15, 7.75, 37.51, 25.99)),
    "fastvit_t12": ((79.28, 68.02, 85.20, 13.59, 40.08, 27.94), (80.36, 69.65, 86.37, 15.61, 41.83, 29.65)),
    "fastvit_s12": ((79.88, 68.26, 85.45, 15.03, 39.92, 28.15), (81.07, 69.86, 86.74, 16.99, 42.55, 30.19)),
    "fastvit_sa12": ((80.85, 69.67, 86.58, 16.31, 42.92, 29.68), (81.84, 70.98, 87.35, 21.31, 44.11, 31.17)),
    "fastvit_sa24": ((82.71, 72.07, 87.65, 29.00, 46.65, 34.10), (83.37, 73.16, 88.51, 31.35, 47.97, 35.22)),
    "fastvit_sa36": ((83.50, 73.15, 88.10, 33.00, 48.20, 36.54), (84.03, 73.92, 88.78, 36.41, 50.33, 37.10)),
    "fastvit_ma36": ((83.88, 73.74, 88.36, 34.53, 49.52, 36.57), (84.61, 74.44, 89.12, 37.53, 51.88, 38.39)),
}
_FASTVIT_7 = {
    "fastvit_sa12": {"imagenet": 80.6, "c": 62.2, "a": 17.2, "r": 42.6, "sketch": 29.7},
    "fastvit_sa24": {"imagenet": 82.6, "c": 55.3, "a": 26.0, "r": 46.5, "sketch": 34.0},
    "fastvit_sa36": {"imagenet": 83.6, "c": 51.8, "a": 32.3, "r": 48.1, "sketch": 35.8},
    "fastvit_ma36": {"imagenet": 83.9, "c": 49.9, "a": 34.6, "r": 49.5, "sketch": 36.6},
}
_FASTERVIT_S2 = {
    "fastervit_0": {"imagenet": 82.1, "a": 23.9, "r": 45.9, "v2-matched": 70.9},
    "fastervit_1": {"imagenet": 83.2, "a": 31.2, "r": 47.5, "v2-matched": 72.6},
    "fastervit_2": {"imagenet": 84.2, "a": 38.2, "r": 49.6, "v2-matched": 73.7},
    "fastervit_3": {"imagenet": 84.9, "a": 44.2, "r": 51.9, "v2-matched": 75.0},
    "fastervit_4": {"imagenet": 85.4, "a": 49.0, "r": 56.0, "v2-matched": 75.7},
    "fastervit_5": {"imagenet": 85.6, "a": 52.7, "r": 56.9, "v2-matched": 76.0},
    "fastervit_6": {"imagenet": 85.8, "a": 53.7, "r": 57.1, "v2-matched": 76.1},
}


def published(architecture: str, suite: str) -> tuple[tuple[str, float], ...]:
    """(source, %) of each published value of a model on a suite: top-1, of suite "c" mCE; of none, empty."""
    found = [
        (source, table[architecture][suite])
        for source, table in (("FastViT Table 7", _FASTVIT_7), ("FasterViT Table S.2", _FASTERVIT_S2))
        if suite in table.get(architecture, {})
    ]
    if architecture in _TIMM and suite in _SUITES:
        plain, distilled = (values[_SUITES.index(suite)] for values in _TIMM[architecture])
        found += [("timm", plain), ("timm, distilled", distilled)]
    return tuple(found)
