"""What NVIDIA published of each FasterViT variant: the paper's Tables 1 and 3, and the released weights."""

from hybridvit.card import CropMode
from hybridvit.models.published import Latency, Published, Weights

_PAPER = "Hatamizadeh et al., FasterViT, ICLR 2024, Tables 1 and 3"
_RELEASE = "NVlabs/FasterViT README"
_HUB = "ahatamiz/FasterViT"
_LICENCE = "NVIDIA Source Code License-NC (non-commercial)"


def _published(
    file: str,
    *,
    parameters: float,
    multiply_adds: float,
    top1: float,
    images_per_second: int | None,
    size: int = 224,
    crop: float = 1.0,
    crop_mode: CropMode = "center",
) -> Published:
    tag = "nvidia_in21k_ft_in1k" if "21k" in file else "nvidia_in1k"
    weights = Weights(
        hub_id=_HUB,
        file=file,
        url=f"https://huggingface.co/{_HUB}/resolve/main/{file}",
        licence=_LICENCE,
        top1=top1,
        source=_RELEASE,
    )
    latency = (
        Latency(milliseconds=128e3 / images_per_second, device="A100", batch=128, source=_PAPER)
        if images_per_second
        else None
    )
    return Published(
        image_size_px=size,
        crop_fraction=crop,
        crop_mode=crop_mode,
        parameters_millions=parameters,
        multiply_adds_billions=multiply_adds,
        top1=top1,
        latencies=(latency,) if latency else (),
        source=_PAPER,
        weights=((tag, weights),),
    )


def _on_21k(size: int, window: int, *, multiply_adds: float, top1: float, speed: int | None, crop: float) -> Published:
    return _published(
        f"fastervit_4_21k_{size}_w{window}.pth.tar",
        parameters=271.9,
        multiply_adds=multiply_adds,
        top1=top1,
        images_per_second=speed,
        size=size,
        crop=crop,
        crop_mode="squash",
    )


PUBLISHED: dict[str, Published] = {
    "fastervit_debug": Published(image_size_px=64, crop_fraction=1.0, source="a size for tests; nothing is published"),
    "fastervit_0": _published(
        "fastervit_0_224_1k.pth.tar",
        parameters=31.4,
        multiply_adds=3.3,
        top1=82.1,
        images_per_second=5802,
        crop=0.875,
    ),
    "fastervit_1": _published(
        "fastervit_1_224_1k.pth.tar", parameters=53.4, multiply_adds=5.3, top1=83.2, images_per_second=4188
    ),
    "fastervit_2": _published(
        "fastervit_2_224_1k.pth.tar", parameters=75.9, multiply_adds=8.7, top1=84.2, images_per_second=3161
    ),
    "fastervit_3": _published(
        "fastervit_3_224_1k.pth.tar", parameters=159.5, multiply_adds=18.2, top1=84.9, images_per_second=1780
    ),
    "fastervit_4": _published(
        "fastervit_4_224_1k.pth.tar", parameters=424.6, multiply_adds=36.6, top1=85.4, images_per_second=849
    ),
    "fastervit_5": _published(
        "fastervit_5_224_1k.pth.tar", parameters=957.5, multiply_adds=113.0, top1=85.6, images_per_second=449
    ),
    "fastervit_6": _published(
        "fastervit_6_224_1k.pth.tar", parameters=1360.0, multiply_adds=142.0, top1=85.8, images_per_second=352
    ),
    "fastervit_4_21k_224": _on_21k(224, 14, multiply_adds=40.8, top1=86.6, speed=849, crop=0.95),
    "fastervit_4_21k_384": _on_21k(384, 24, multiply_adds=120.1, top1=87.6, speed=281, crop=1.0),
    "fastervit_4_21k_512": _on_21k(512, 32, multiply_adds=213.5, top1=87.8, speed=None, crop=1.0),
    "fastervit_4_21k_768": _on_21k(768, 48, multiply_adds=480.4, top1=87.9, speed=None, crop=0.93),
}
