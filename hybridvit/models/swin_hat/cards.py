"""What is published of Swin with hierarchical attention: one line of FasterViT's Table 7, and no weights."""

from hybridvit.models.published import Latency, Published

_PAPER = "Hatamizadeh et al., FasterViT, ICLR 2024, Table 7"
_SWIN_CROP = 0.9  # of timm's Swin weights

PUBLISHED: dict[str, Published] = {
    "swin_debug_hat": Published(image_size_px=64, crop_fraction=1.0, source="a size for tests; nothing is published"),
    "swin_tiny_hat": Published(
        image_size_px=224,
        crop_fraction=_SWIN_CROP,
        top1=81.7,  # Swin-T itself: 81.3
        latencies=(Latency(milliseconds=128e3 / 2721, device="A100", batch=128, source=_PAPER),),  # Swin-T: 2758 / s
        source=f"{_PAPER} (no weights, parameters or multiply-adds)",
    ),
    "swin_small_hat": Published(
        image_size_px=224,
        crop_fraction=_SWIN_CROP,
        source="Swin-S built as Table 7 builds Swin-T; nothing is published",
    ),
}
