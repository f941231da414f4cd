"""What Apple published of each FastViT variant: the paper's Tables 5 and 6, and the released weights."""

from hybridvit.models.published import Latency, Published, Weights

_PAPER = "Vasu et al., FastViT, ICCV 2023, Tables 5 and 6"
_RELEASE = "apple/ml-fastvit README"
_FILES = "https://docs-assets.developer.apple.com/ml-research/models/fastvit"
_LICENCE = "Apple sample code licence of ml-fastvit (hub tag: fastvit-license)"


def _published(
    short: str,
    *,
    parameters: float,
    multiply_adds: float,
    paper: tuple[float, float],
    released: tuple[float, float],
    phone_ms: float,
    gpu_ms: float,
    crop: float = 0.9,
) -> Published:
    """One row; `paper` and `released` are top-1 accuracies (plain, distilled) in %."""

    def weights(kind: str, top1: float, folder: str) -> tuple[str, Weights]:
        base = f"{_FILES}/{folder}/fastvit_{short}"
        return kind, Weights(
            hub_id=f"timm/fastvit_{short}.{kind}",
            url=f"{base}.pth.tar",
            folded_url=f"{base}_reparam.pth.tar",
            licence=_LICENCE,
            top1=top1,
            source=_RELEASE,
        )

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
            weights("apple_in1k", released[0], "image_classification_models"),
            weights("apple_dist_in1k", released[1], "image_classification_distilled_models"),
        ),
    )


PUBLISHED: dict[str, Published] = {
    "fastvit_debug": Published(image_size_px=32, crop_fraction=1.0, source="a size for tests; nothing is published"),
    "fastvit_t8": _published(
        "t8", parameters=3.6, multiply_adds=0.7, paper=(75.6, 76.7), released=(76.2, 77.2), phone_ms=0.8, gpu_ms=1.7
    ),
    "fastvit_t12": _published(
        "t12", parameters=6.8, multiply_adds=1.4, paper=(79.1, 80.3), released=(79.3, 80.3), phone_ms=1.2, gpu_ms=2.1
    ),
    "fastvit_s12": _published(
        "s12", parameters=8.8, multiply_adds=1.8, paper=(79.8, 80.9), released=(79.9, 81.1), phone_ms=1.4, gpu_ms=2.2
    ),
    "fastvit_sa12": _published(
        "sa12", parameters=10.9, multiply_adds=1.9, paper=(80.6, 81.9), released=(80.9, 81.9), phone_ms=1.6, gpu_ms=2.5
    ),
    "fastvit_sa24": _published(
        "sa24", parameters=20.6, multiply_adds=3.8, paper=(82.6, 83.4), released=(82.7, 83.4), phone_ms=2.6, gpu_ms=3.8
    ),
    "fastvit_sa36": _published(
        "sa36",
        parameters=30.4,
        multiply_adds=5.6,
        paper=(83.6, 84.2),
        released=(83.6, 84.2),
        phone_ms=3.5,
        gpu_ms=5.2,
        crop=0.95,
    ),
    "fastvit_ma36": _published(
        "ma36",
        parameters=42.7,
        multiply_adds=7.9,
        paper=(83.9, 84.6),
        released=(83.9, 84.6),
        phone_ms=4.5,
        gpu_ms=6.7,
        crop=0.95,
    ),
}
