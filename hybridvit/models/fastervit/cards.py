"""What NVIDIA published of each FasterViT variant: the paper's Tables 1 and 3, and the released weights."""

from hybridvit.card import CropMode
from hybridvit.models.published import Latency, Published, Weights

_PAPER = "Hatamizadeh et al., FasterViT, ICLR 2024, Tables 1 and 3"
_RELEASE = "NVlabs/FasterViT README"
_HUB = "ahatamiz/FasterViT"
_LICENCE = "NVIDIA Source Code License-NC (non-commercial)"

_ROWS: dict[str, tuple[str, float, float, float, int | None, int, float, CropMode]] = {
    # end of the file's name, parameters in millions, multiply-adds in billions, top-1 in %, images per second, image
    # size, crop fraction, crop mode
    "0": ("224_1k", 31.4, 3.3, 82.1, 5802, 224, 0.875, "center"),
    "1": ("224_1k", 53.4, 5.3, 83.2, 4188, 224, 1.0, "center"),
    "2": ("224_1k", 75.9, 8.7, 84.2, 3161, 224, 1.0, "center"),
    "3": ("224_1k", 159.5, 18.2, 84.9, 1780, 224, 1.0, "center"),
    "4": ("224_1k", 424.6, 36.6, 85.4, 849, 224, 1.0, "center"),
    "5": ("224_1k", 957.5, 113.0, 85.6, 449, 224, 1.0, "center"),
    "6": ("224_1k", 1360.0, 142.0, 85.8, 352, 224, 1.0, "center"),
    "4_21k_224": ("w14", 271.9, 40.8, 86.6, 849, 224, 0.95, "squash"),
    "4_21k_384": ("w24", 271.9, 120.1, 87.6, 281, 384, 1.0, "squash"),
    "4_21k_512": ("w32", 271.9, 213.5, 87.8, None, 512, 1.0, "squash"),
    "4_21k_768": ("w48", 271.9, 480.4, 87.9, None, 768, 0.93, "squash"),
}


def _published(short: str) -> Published:
    end, parameters, multiply_adds, top1, images_per_second, size, crop, crop_mode = _ROWS[short]
    file = f"fastervit_{short}_{end}.pth.tar"
    weights = Weights(
        hub_id=_HUB,
        file=file,
        url=f"https://huggingface.co/{_HUB}/resolve/main/{file}",
        licence=_LICENCE,
        top1=top1,
        source=_RELEASE,
    )
    return Published(
        image_size_px=size,
        crop_fraction=crop,
        crop_mode=crop_mode,
        parameters_millions=parameters,
        multiply_adds_billions=multiply_adds,
        top1=top1,
        latencies=()
        if images_per_second is None
        else (Latency(milliseconds=128e3 / images_per_second, device="A100", batch=128, source=_PAPER),),
        source=_PAPER,
        weights=(("nvidia_in21k_ft_in1k" if "21k" in short else "nvidia_in1k", weights),),
    )


PUBLISHED: dict[str, Published] = {
    "fastervit_debug": Published(image_size_px=64, crop_fraction=1.0, source="a size for tests; nothing is published"),
    **{f"fastervit_{short}": _published(short) for short in _ROWS},
}
