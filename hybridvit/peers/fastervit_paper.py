"""FasterViT's tables: 1 (ImageNet-1k) and 3 (pre-trained on ImageNet-21k). Figures as printed, errors included.

Throughput: A100, batch 128. "FLOPs" are multiply-adds.
"""

import dataclasses
from functools import partial

from hybridvit.peers.paper_row import PaperRow, PaperTable, row_of

_PAPER = "Hatamizadeh et al., FasterViT, ICLR 2024"
_THROUGHPUT = "A100, batch 128"
_FOLDED = "folded for one image size, where the MLPs of positions are constants and count as no parameters"
_REMARKS = {
    **dict.fromkeys((f"fastervit_{size}" for size in range(7)), _FOLDED),
    "tf_efficientnetv2_s.in1k": "with TensorFlow's padding",
    "poolformer_m48.sail_in1k": "PoolFormer has no M58; the figures are those of M48",
    "vit_large_patch16_384.augreg_in21k_ft_in1k": "timm's weights are of a later training than the paper's",
    **dict.fromkeys(
        ("fastervit_4_21k_224", "fastervit_4_21k_384"),
        f"the released model has no carriers, and fewer parameters than printed; {_FOLDED}",
    ),
}
_COLUMNS = (
    "system", "image_size_px", "parameters_millions", "multiply_adds_billions", "images_per_s", "top1", "model",
)  # fmt: skip
_row = partial(row_of, _COLUMNS, _REMARKS)


def _group(heading: str, *rows: PaperRow) -> tuple[PaperRow, ...]:
    return tuple(dataclasses.replace(row, group=heading) for row in rows)


ON_1K = PaperTable(
    name="fastervit-1",
    title="FasterViT, Table 1: ImageNet-1k",
    source=f"{_PAPER}, Table 1",
    throughput=_THROUGHPUT,
    rows=(
        *_group(
            "Conv-Based",
            _row("ConvNeXt-T", 224, 28.6, 4.5, 3196, 82.0, "convnext_tiny.fb_in1k"),
            _row("ConvNeXt-S", 224, 50.2, 8.7, 2008, 83.1, "convnext_small.fb_in1k"),
            _row("ConvNeXt-B", 224, 88.6, 15.4, 1485, 83.8, "convnext_base.fb_in1k"),
            _row("RegNetY-040", 288, 20.6, 6.6, 3227, 83.0, "regnety_040.ra3_in1k"),
            _row("ResNetV2-101", 224, 44.5, 7.8, 4019, 82.0, "resnetv2_101.a1h_in1k"),
            _row("EfficientNetV2-S", 384, 21.5, 8.0, 1735, 83.9, "tf_efficientnetv2_s.in1k"),
        ),
        *_group(
            "Transformer-Based",
            _row("Swin-T", 224, 28.3, 4.4, 2758, 81.3, "swin_tiny_patch4_window7_224.ms_in1k"),
            _row("Swin-S", 224, 49.6, 8.5, 1720, 83.2, "swin_small_patch4_window7_224.ms_in1k"),
            _row("SwinV2-T", 256, 28.3, 4.4, 1674, 81.8, "swinv2_tiny_window8_256.ms_in1k"),
            _row("SwinV2-S", 256, 49.7, 8.5, 1043, 83.8, "swinv2_small_window8_256.ms_in1k"),
            _row("SwinV2-B", 256, 87.9, 15.1, 535, 84.6, "swinv2_base_window16_256.ms_in1k"),
            _row("Twins-B", 224, 56.1, 8.3, 1926, 83.1, "twins_svt_base.in1k"),
            _row("DeiT3-L", 224, 304.4, 59.7, 535, 84.8, "deit3_large_patch16_224.fb_in1k"),
            _row("PoolFormer-M58", 224, 73.5, 11.6, 884, 82.4, "poolformer_m48.sail_in1k"),
        ),
        *_group(
            "Hybrid",
            _row("CoaT-Lite-S", 224, 19.8, 4.1, 2269, 82.3, "coat_lite_small.in1k"),
            _row("CrossViT-B", 240, 105.0, 20.1, 1321, 82.2, "crossvit_base_240.in1k"),
            _row("Visformer-S", 224, 40.2, 4.8, 3676, 82.1, "visformer_small.in1k"),
            _row("EdgeViT-S", 224, 13.1, 1.9, 4254, 81.0),
            _row("EfficientFormer-L7", 224, 82.2, 10.2, 1359, 83.4, "efficientformer_l7.snap_dist_in1k"),
            _row("MaxViT-B", 224, 120.0, 23.4, 507, 84.9, "maxvit_base_tf_224.in1k"),
            _row("MaxViT-L", 224, 212.0, 43.9, 376, 85.1, "maxvit_large_tf_224.in1k"),
        ),
        *_group(
            "FasterViT",
            _row("FasterViT-0", 224, 31.4, 3.3, 5802, 82.1, "fastervit_0"),
            _row("FasterViT-1", 224, 53.4, 5.3, 4188, 83.2, "fastervit_1"),
            _row("FasterViT-2", 224, 75.9, 8.7, 3161, 84.2, "fastervit_2"),
            _row("FasterViT-3", 224, 159.5, 18.2, 1780, 84.9, "fastervit_3"),
            _row("FasterViT-4", 224, 424.6, 36.6, 849, 85.4, "fastervit_4"),
            _row("FasterViT-5", 224, 957.5, 113.0, 449, 85.6, "fastervit_5"),
            _row("FasterViT-6", 224, 1360.0, 142.0, 352, 85.8, "fastervit_6"),
        ),
    ),
)
ON_21K = PaperTable(
    name="fastervit-3",
    title="FasterViT, Table 3: pre-trained on ImageNet-21k",
    source=f"{_PAPER}, Table 3",
    throughput=_THROUGHPUT,
    rows=(
        _row("ViT-L/16", 384, 307.0, 190.7, 149, 85.2, "vit_large_patch16_384.augreg_in21k_ft_in1k"),
        _row("Swin-L", 224, 197.0, 34.5, 787, 86.3, "swin_large_patch4_window7_224.ms_in22k_ft_in1k"),
        _row("Swin-L", 384, 197.0, 103.9, 206, 87.3, "swin_large_patch4_window12_384.ms_in22k_ft_in1k"),
        _row("ConvNeXt-L", 224, 198.0, 34.4, 508, 86.6, "convnext_large.fb_in22k_ft_in1k"),
        _row("ConvNeXt-L", 384, 198.0, 101.0, 172, 87.5, "convnext_large.fb_in22k_ft_in1k_384"),
        _row("FasterViT-4", 224, 424.6, 36.6, 849, 86.6, "fastervit_4_21k_224"),
        _row("FasterViT-4", 384, 424.6, 119.2, 281, 87.5, "fastervit_4_21k_384"),
    ),
)
