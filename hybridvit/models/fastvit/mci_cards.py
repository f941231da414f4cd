"""What Apple published of FastViT's successors: the image towers of MobileCLIP, MobileCLIP2 and FastVLM.

They end in a projection into the space of a text tower, so that an accuracy on ImageNet is one of image and text tower
together, without training on its classes.
"""

from hybridvit.card import Preprocessing
from hybridvit.models.published import Latency, Published, Weights

_V1 = "Vasu et al., MobileCLIP, CVPR 2024"
_V2 = "Faghri et al., MobileCLIP2, TMLR 2025"
_VLM = "Vasu et al., FastVLM, CVPR 2025"
_RELEASE = "apple/ml-mobileclip README"
_LICENCE = "apple-amlr: research only, non-commercial, and so is everything made from the weights"
_FILES = "https://docs-assets.developer.apple.com/ml-research/datasets/mobileclip"
_HUB = "https://huggingface.co/apple"

PLAIN_MEAN, PLAIN_STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)  # pixels as they are, from 0 to 1
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
FASTVLM_INPUT = Preprocessing(
    image_size=(1024, 1024), interpolation="bicubic", crop_fraction=1.0, crop_mode="pad", mean=PLAIN_MEAN, std=PLAIN_STD
)
FASTVLM_PREFIXES = ("model.vision_tower.vision_tower.model.", "model.vision_tower.timm_model.")

_ROWS: dict[int, tuple[float, int, float, float | None, float | None]] = {
    # parameters in millions (as released), width of the projection, milliseconds on the phone, zero-shot top-1 in % of
    # MobileCLIP and of MobileCLIP2; MobileCLIP's S3 and S4 exist as whole models only
    0: (11.4, 512, 1.5, 67.79, 71.53),
    1: (21.5, 512, 2.5, 72.62, None),
    2: (35.7, 512, 3.6, 74.44, 77.24),
    3: (125.1, 768, 8.0, None, 80.68),
    4: (321.6, 768, 19.6, None, 81.85),
}


def _published(size: int) -> Published:
    parameters, width, phone_ms, first, second = _ROWS[size]
    paper = _V1 if first else _V2
    weights: dict[str, Weights] = {}
    if first:
        weights["apple_mclip"] = _of_mobileclip(
            f"apple/mobileclip_s{size}_timm", url=f"{_FILES}/mobileclip_s{size}.pt", top1=first
        )
    if second:
        weights["apple_mclip2_dfndr2b"] = _of_mobileclip(
            f"timm/fastvit_mci{size}.apple_mclip2_dfndr2b",
            url=f"{_HUB}/MobileCLIP2-S{size}/resolve/main/mobileclip2_s{size}.pt",
            top1=second,
        )
    if size == 3:
        weights["apple_fastvlm_0.5b"] = _of_fastvlm()
    return Published(
        image_size_px=256,
        crop_fraction=1.0,
        interpolation="bilinear",
        mean=CLIP_MEAN if size > 2 else PLAIN_MEAN,
        std=CLIP_STD if size > 2 else PLAIN_STD,
        embedding_width=width,
        parameters_millions=parameters,
        latencies=(Latency(milliseconds=phone_ms, device="iPhone 12 Pro Max, Core ML", batch=1, source=paper),),
        source=paper,
        weights=tuple(weights.items()),
    )


def _of_mobileclip(hub_id: str, *, url: str, top1: float) -> Weights:
    return Weights(hub_id=hub_id, url=url, licence=_LICENCE, zero_shot_top1=top1, source=_RELEASE)


def _of_fastvlm() -> Weights:
    """The tower inside a language model: folded as released, tuned for that model, its projection left behind."""
    return Weights(
        hub_id="apple/FastVLM-0.5B",
        file="model.safetensors",
        url=f"{_HUB}/FastVLM-0.5B",
        licence=_LICENCE,
        preprocessing=FASTVLM_INPUT,
        prefixes=FASTVLM_PREFIXES,
        source=_VLM,
    )


PUBLISHED: dict[str, Published] = {
    "fastvit_mci_debug": Published(
        image_size_px=32,
        crop_fraction=1.0,
        interpolation="bilinear",
        mean=PLAIN_MEAN,
        std=PLAIN_STD,
        embedding_width=16,
        source="a size for tests; nothing is published",
    ),
    **{f"fastvit_mci{size}": _published(size) for size in _ROWS},
}
