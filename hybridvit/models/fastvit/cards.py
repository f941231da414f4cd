"""What Apple published of each FastViT variant: the paper's Tables 5 and 6, and the released weights."""

from hybridvit.models.fastvit import mci_cards
from hybridvit.models.published import Latency, Published, Weights

_PAPER = "Vasu et al., FastViT, ICCV 2023, Tables 5 and 6"
_RELEASE = "apple/ml-fastvit README"
_FILES = "https://docs-assets.developer.apple.com/ml-research/models/fastvit"
_LICENCE = "Apple sample code licence of ml-fastvit (hub tag: fastvit-license)"

_ROWS: dict[str, tuple[float, float, tuple[float, float], tuple[float, float], float, float, float]] = {
    # parameters in millions, multiply-adds in billions, top-1 in % (plain, distilled) of the paper and of the release,
    # milliseconds on the phone and on the GPU, crop fraction
    "t8": (3.6, 0.7, (75.6, 76.7), (76.2, 77.2), 0.8, 1.7, 0.9),
    "t12": (6.8, 1.4, (79.1, 80.3), (79.3, 80.3), 1.2, 2.1, 0.9),
    "s12": (8.8, 1.8, (79.8, 80.9), (79.9, 81.1), 1.4, 2.2, 0.9),
    "sa12": (10.9, 1.9, (80.6, 81.9), (80.9, 81.9), 1.6, 2.5, 0.9),
    "sa24": (20.6, 3.8, (82.6, 83.4), (82.7, 83.4), 2.6, 3.8, 0.9),
    "sa36": (30.4, 5.6, (83.6, 84.2), (83.6, 84.2), 3.5, 5.2, 0.95),
    "ma36": (42.7, 7.9, (83.9, 84.6), (83.9, 84.6), 4.5, 6.7, 0.95),
}


def _published(short: str) -> Published:
    parameters, multiply_adds, paper, released, phone_ms, gpu_ms, crop = _ROWS[short]
    return Published(
        image_size_px=256,
        crop_fraction=crop,
        parameters_millions=parameters,
        multiply_adds_billions=multiply_adds,
        top1=paper[0],
        top1_distilled=paper[1],
        latencies=(
            Latency(milliseconds=phone_ms, device="iPhone 12 Pro, Core ML", batch=1, source=_PAPER),
            Latency(milliseconds=gpu_ms, device="RTX 2080Ti, TensorRT", batch=8, source=_PAPER),
        ),
        source=_PAPER,
        weights=(
            ("apple_in1k", _weights(short, "apple_in1k", released[0])),
            ("apple_dist_in1k", _weights(short, "apple_dist_in1k", released[1])),
        ),
    )


def _weights(short: str, tag: str, top1: float) -> Weights:
    folder = "image_classification_distilled_models" if "dist" in tag else "image_classification_models"
    base = f"{_FILES}/{folder}/fastvit_{short}"
    return Weights(
        hub_id=f"timm/fastvit_{short}.{tag}",
        url=f"{base}.pth.tar",
        folded_url=f"{base}_reparam.pth.tar",
        licence=_LICENCE,
        top1=top1,
        source=_RELEASE,
    )


PUBLISHED: dict[str, Published] = {
    "fastvit_debug": Published(image_size_px=32, crop_fraction=1.0, source="a size for tests; nothing is published"),
    **{f"fastvit_{short}": _published(short) for short in _ROWS},
    **mci_cards.PUBLISHED,
}
