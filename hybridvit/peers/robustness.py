"""Published robustness: AlexNet's errors under corruption, and top-1 of models on the suites, in %.

AlexNet: hendrycks/robustness, issue 10 (torchvision's weights). Of models: the tables of `hybridvit.peers.papers`.
"""

from collections.abc import Mapping
from types import MappingProxyType

from hybridvit.peers.paper_row import TableName
from hybridvit.peers.papers import TABLES

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

_TABLES: dict[TableName, str] = {
    "fastvit-7": "FastViT Table 7",
    "fastervit-s2": "FasterViT Table S.2",
    "timm-robustness": "timm",
}


def published(architecture: str, suite: str) -> tuple[tuple[str, float], ...]:
    """(source, %) of each published value of a model on a suite: top-1, of suite "c" mCE; of none, empty."""
    return tuple(
        (f"{source}{row.system.removeprefix(architecture) if table == 'timm-robustness' else ''}", row.values[suite])
        for table, source in _TABLES.items()
        for row in TABLES[table].robustness
        if row.model == architecture and suite in row.values
    )
