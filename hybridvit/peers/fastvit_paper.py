"""FastViT's tables: 2 (architectures), 5 (ImageNet-1k) and 6 (with distillation). Figures as printed, errors included.

Latencies: iPhone 12 Pro, Core ML, batch 1; RTX 2080Ti, TensorRT, batch 8 (section 4.1). "FLOPs" are multiply-adds.
"""

from functools import partial

from hybridvit.peers.paper_row import ArchitectureRow, PaperTable, row_of

_PAPER = "Vasu et al., FastViT, ICCV 2023"
_PHONE = "iPhone 12 Pro, Core ML, batch 1"
_GPU = "RTX 2080Ti, TensorRT, batch 8"
_REMARKS = {
    "resnest101e.in1k": "timm's weights are for 256 px",
    **dict.fromkeys(
        ("efficientnet_b1.ft_in1k", "efficientnet_b2.ra_in1k", "efficientnet_b3.ra2_in1k"),
        "timm's own training, with PyTorch's padding",
    ),
    **dict.fromkeys(
        (
            "tf_efficientnet_b5.aa_in1k",
            "tf_efficientnet_b6.aa_in1k",
            "tf_efficientnet_b7.aa_in1k",
            "tf_efficientnetv2_s.in1k",
        ),
        "with TensorFlow's padding",
    ),
    **dict.fromkeys(("coatnet_0_224", "coatnet_1_224", "coatnet_2_224"), "timm has this architecture without weights"),
    **dict.fromkeys(
        ("convnext_tiny_conv_mlp", "convnext_small_conv_mlp", "convnext_base_conv_mlp"),
        "without the reshapes, as in the paper's supplement, Table 4",
    ),
}
_COLUMNS = (
    "system", "image_size_px", "parameters_millions", "multiply_adds_billions", "gpu_ms", "phone_ms", "top1", "model",
)  # fmt: skip
_row = partial(row_of, _COLUMNS, _REMARKS)


def _architecture(
    system: str, width: int, blocks: tuple[int, int, int, int], ratio: int, parameters: float, multiply_adds: float
) -> ArchitectureRow:
    return ArchitectureRow(
        system=system,
        model=f"fastvit_{system.lower()}",
        stem_width=width,
        blocks=blocks,
        mlp_ratio=ratio,
        last_mixer="Attention" if "A" in system else "RepMixer",
        parameters_millions=parameters,
        multiply_adds_billions=multiply_adds,
    )


ARCHITECTURES = PaperTable(
    name="fastvit-2",
    title="FastViT, Table 2: architectures",
    source=f"{_PAPER}, Table 2",
    architectures=(
        _architecture("T8", 48, (2, 2, 4, 2), 3, 3.6, 0.7),
        _architecture("T12", 64, (2, 2, 6, 2), 3, 6.8, 1.4),
        _architecture("S12", 64, (2, 2, 6, 2), 4, 8.8, 1.8),
        _architecture("SA12", 64, (2, 2, 6, 2), 4, 10.9, 1.9),
        _architecture("SA24", 64, (4, 4, 12, 4), 4, 20.6, 3.8),
        _architecture("SA36", 64, (6, 6, 18, 6), 4, 30.4, 5.6),
        _architecture("MA36", 76, (6, 6, 18, 6), 4, 42.7, 7.9),
    ),
)
COMPARISON = PaperTable(
    name="fastvit-5",
    title="FastViT, Table 5: ImageNet-1k",
    source=f"{_PAPER}, Table 5",
    gpu=_GPU,
    phone=_PHONE,
    rows=(
        _row("MobileOne-S0", 224, 2.1, 0.3, 1.0, 0.8, 71.4, "mobileone_s0.apple_in1k"),
        _row("FastViT-T8", 256, 3.6, 0.7, 1.7, 0.8, 75.6, "fastvit_t8"),
        _row("MobileOne-S3", 224, 10.1, 1.8, 2.1, 1.5, 78.1, "mobileone_s3.apple_in1k"),
        _row("CMT-T*", 160, 9.5, 0.6, 4.5, 3.8, 79.1),
        _row("EfficientNet-B1", 256, 7.8, 0.7, 3.2, 2.5, 79.1, "efficientnet_b1.ft_in1k"),
        _row("FastViT-T12", 256, 6.8, 1.4, 2.1, 1.2, 79.1, "fastvit_t12"),
        _row("MobileOne-S4", 224, 14.8, 2.9, 2.6, 1.9, 79.4, "mobileone_s4.apple_in1k"),
        _row("RSB-ResNet50", 224, 25.6, 4.1, 2.3, 2.6, 79.8, "resnet50.a2_in1k"),
        _row("DeiT-S", 224, 22.0, 4.6, 5.2, 5.3, 79.8, "deit_small_patch16_224.fb_in1k"),
        _row("FastViT-S12", 256, 8.8, 1.8, 2.2, 1.4, 79.8, "fastvit_s12"),
        _row("RegNetY-8G", 224, 39.2, 8.0, 5.8, 3.8, 79.9, "regnety_080.pycls_in1k"),
        _row("EfficientNet-B2", 288, 9.2, 1.0, 4.1, 3.5, 80.1, "efficientnet_b2.ra_in1k"),
        _row("PoolFormer-S24", 224, 21.0, 3.4, 15.7, 2.5, 80.3, "poolformer_s24.sail_in1k"),
        _row("RegNetY-16G", 224, 83.6, 16.0, 8.1, 7.5, 80.4, "regnety_160.pycls_in1k"),
        _row("FastViT-SA12", 256, 10.9, 1.9, 2.5, 1.6, 80.6, "fastvit_sa12"),
        _row("ResNeSt50", 224, 27.5, 5.4, 51.5, 29.9, 81.1, "resnest50d.in1k"),
        _row("Swin-T", 224, 29.0, 4.5, None, 9.3, 81.3, "swin_tiny_patch4_window7_224.ms_in1k"),
        _row("PoolFormer-S36", 224, 31.0, 5.0, 23.7, 3.5, 81.4, "poolformer_s36.sail_in1k"),
        _row("EfficientNet-B3", 300, 12.0, 1.8, 5.3, 7.1, 81.6, "efficientnet_b3.ra2_in1k"),
        _row("CvT-13", 224, 20.1, 4.5, 18.1, 62.6, 81.6),
        _row("CoAtNet-0", 224, 25.0, 4.2, None, 6.7, 81.6, "coatnet_0_224"),
        _row("CMT-XS*", 192, 15.2, 1.5, 8.3, 6.3, 81.8),
        _row("DeiT-B", 224, 86.0, 17.5, 11.6, 11.6, 81.8, "deit_base_patch16_224.fb_in1k"),
        _row("RSB-ResNet152", 224, 60.2, 11.6, 5.4, 4.7, 81.8, "resnet152.a2_in1k"),
        _row("LITv2-S", 224, 28.0, 3.7, None, None, 82.0),
        _row("ConvNeXt-T*", 224, 29.0, 4.5, 6.3, 3.7, 82.1, "convnext_tiny_conv_mlp"),
        _row("PoolFormer-M48", 224, 73.0, 11.6, 30.2, 7.6, 82.5, "poolformer_m48.sail_in1k"),
        _row("FastViT-SA24", 256, 20.6, 3.8, 3.8, 2.6, 82.6, "fastvit_sa24"),
        _row("ResNeSt101", 224, 48.2, 10.2, 75.5, 37.7, 83.0, "resnest101e.in1k"),
        _row("Swin-S", 224, 50.0, 8.7, None, 13.0, 83.0, "swin_small_patch4_window7_224.ms_in1k"),
        _row("ConvNeXt-S*", 224, 50.0, 8.7, 10.3, 5.4, 83.1, "convnext_small_conv_mlp"),
        _row("MOAT-0", 224, 27.8, 5.7, None, 4.9, 83.3),
        _row("CoAtNet-1", 224, 42.0, 8.4, None, 13.4, 83.3, "coatnet_1_224"),
        _row("Swin-B", 224, 88.0, 15.4, None, 18.5, 83.5, "swin_base_patch4_window7_224.ms_in1k"),
        _row("CMT-S*", 224, 25.1, 4.0, 13.8, 15.6, 83.5),
        _row("MaxViT-T", 224, 31.0, 5.6, None, 31.5, 83.6, "maxvit_tiny_tf_224.in1k"),
        _row("LITv2-B", 224, 87.0, 13.2, None, None, 83.6),
        _row("EfficientNet-B5", 456, 30.0, 9.9, 24.2, 22.1, 83.6, "tf_efficientnet_b5.aa_in1k"),
        _row("NFNet-F0", 256, 71.5, 12.4, 6.2, 6.4, 83.6, "dm_nfnet_f0.dm_in1k"),
        _row("FastViT-SA36", 256, 30.4, 5.6, 5.2, 3.5, 83.6, "fastvit_sa36"),
        _row("ConvNeXt-B*", 224, 89.0, 15.4, 13.6, 8.4, 83.8, "convnext_base_conv_mlp"),
        _row("CoAtNet-0", 384, 25.0, 13.4, None, 20.1, 83.9, "coatnet_0_224"),
        _row("EfficientNetV2-S", 384, 22.0, 8.8, 8.2, 7.1, 83.9, "tf_efficientnetv2_s.in1k"),
        _row("FastViT-MA36", 256, 42.7, 7.9, 6.7, 4.5, 83.9, "fastvit_ma36"),
        _row("EfficientNet-B6", 528, 43.0, 19.0, 44.3, 51.7, 84.0, "tf_efficientnet_b6.aa_in1k"),
        _row("CoAtNet-2", 224, 75.0, 15.7, None, 19.6, 84.1, "coatnet_2_224"),
        _row("MOAT-1", 224, 41.6, 9.1, None, 8.3, 84.2),
        _row("EfficientNet-B7", 600, 66.0, 37.0, 72.6, 85.5, 84.3, "tf_efficientnet_b7.aa_in1k"),
        _row("CMT-B*", 256, 45.7, 9.3, 26.9, 20.6, 84.5),
        _row("Swin-B", 384, 88.0, 47.0, None, 57.2, 84.5, "swin_base_patch4_window12_384.ms_in1k"),
        _row("MaxViT-S", 224, 69.0, 11.7, None, 48.7, 84.5, "maxvit_small_tf_224.in1k"),
        _row("FastViT-SA36", 384, 30.4, 12.6, 12.8, 7.4, 84.5, "fastvit_sa36"),
        _row("MOAT-0", 384, 27.8, 18.2, None, 24.3, 84.6),
        _row("NFNet-F1", 320, 132.6, 35.5, 16.9, 16.1, 84.7, "dm_nfnet_f1.dm_in1k"),
        _row("MOAT-2", 224, 73.4, 17.2, None, 12.6, 84.7),
        _row("LITv2-B", 384, 87.0, 39.7, None, None, 84.7),
        _row("FastViT-MA36", 384, 42.7, 17.7, 16.5, 9.2, 84.9, "fastvit_ma36"),
    ),
)
DISTILLED = PaperTable(
    name="fastvit-6",
    title="FastViT, Table 6: ImageNet-1k, with distillation",
    source=f"{_PAPER}, Table 6",
    gpu=_GPU,
    phone=_PHONE,
    rows=(
        _row("FastViT-T8", 256, 3.6, 0.7, 1.7, 0.8, 76.7, "fastvit_t8"),
        _row("FastViT-T12", 256, 6.8, 1.4, 2.1, 1.2, 80.3, "fastvit_t12"),
        _row("CaiT XXS-36", 224, 17.3, 3.8, 15.8, None, 79.7, "cait_xxs36_224.fb_dist_in1k"),
        _row("FastViT-S12", 256, 8.8, 1.8, 2.2, 1.4, 80.9, "fastvit_s12"),
        _row("DeiT-S", 224, 22.0, 4.6, 5.2, 6.7, 81.2, "deit_small_distilled_patch16_224.fb_in1k"),
        _row("FastViT-SA12", 256, 10.9, 1.9, 2.5, 1.6, 81.9, "fastvit_sa12"),
        _row("EfficientFormer-L3", 224, 31.3, 3.9, 3.6, 3.0, 82.4, "efficientformer_l3.snap_dist_in1k"),
        _row("EfficientFormer-L7", 224, 82.1, 10.2, 7.5, 7.0, 83.3, "efficientformer_l7.snap_dist_in1k"),
        _row("DeiT-B", 224, 87.0, 17.6, 11.6, 11.6, 83.4, "deit_base_distilled_patch16_224.fb_in1k"),
        _row("FastViT-SA24", 256, 20.6, 3.8, 3.8, 2.6, 83.4, "fastvit_sa24"),
        _row("CaiT S-24", 224, 46.9, 9.4, 19.1, None, 83.5, "cait_s24_224.fb_dist_in1k"),
        _row("CaiT XS-24", 384, 26.6, 19.3, 77.7, None, 84.1, "cait_xs24_384.fb_dist_in1k"),
        _row("FastViT-SA36", 256, 30.4, 5.6, 5.2, 3.5, 84.2, "fastvit_sa36"),
        _row("FastViT-MA36", 256, 42.7, 7.9, 6.7, 4.5, 84.6, "fastvit_ma36"),
    ),
)
