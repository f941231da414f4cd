"""Which models of timm are compared, with their published accuracies; and which systems timm lacks.

Accuracies are of timm's own evaluation of the published weights. Trainings were read off the papers: USI is
distillation (EdgeNeXt); SSLD distils with images beyond ImageNet-1k (HGNetV2).
"""

from collections.abc import Mapping

from hybridvit.peers.peer import Accuracy, Peer, Training

_CSV = "timm, results/results-imagenet.csv"
_CSV_2024 = f"{_CSV} at commit 7479d451"
_README = "timm, README"

_Row = tuple[str, str, float, Mapping[int, float], Training]  # name, family, parameters (M), top-1 by side, training

# The papers' tables have none of these.
_NEWER: tuple[_Row, ...] = (
    ("repvit_m0_9.dist_300e_in1k", "repvit", 5.49, {224: 78.652}, "distilled"),
    ("repvit_m0_9.dist_450e_in1k", "repvit", 5.49, {224: 79.058}, "distilled"),
    ("repvit_m1_0.dist_300e_in1k", "repvit", 7.30, {224: 80.152}, "distilled"),
    ("repvit_m1_0.dist_450e_in1k", "repvit", 7.30, {224: 80.430}, "distilled"),
    ("repvit_m1_1.dist_300e_in1k", "repvit", 8.80, {224: 80.826}, "distilled"),
    ("repvit_m1_1.dist_450e_in1k", "repvit", 8.80, {224: 81.314}, "distilled"),
    ("repvit_m1_5.dist_300e_in1k", "repvit", 14.64, {224: 82.382}, "distilled"),
    ("repvit_m1_5.dist_450e_in1k", "repvit", 14.64, {224: 82.520}, "distilled"),
    ("repvit_m2_3.dist_300e_in1k", "repvit", 23.69, {224: 83.524}, "distilled"),
    ("repvit_m2_3.dist_450e_in1k", "repvit", 23.69, {224: 83.746}, "distilled"),
    ("mobilenetv4_conv_small.e2400_r224_in1k", "mobilenetv4", 3.77, {224: 73.756}, "plain"),
    ("mobilenetv4_conv_medium.e500_r256_in1k", "mobilenetv4", 9.72, {256: 79.916}, "plain"),
    ("mobilenetv4_hybrid_medium.ix_e550_r256_in1k", "mobilenetv4", 11.07, {256: 81.478}, "plain"),
    ("mobilenetv4_conv_large.e600_r384_in1k", "mobilenetv4", 32.59, {384: 82.974}, "plain"),
    ("mobilenetv4_hybrid_large.ix_e600_r384_in1k", "mobilenetv4", 37.76, {384: 83.996}, "plain"),
    ("efficientvit_b1.r224_in1k", "efficientvit_mit", 9.10, {224: 79.254}, "plain"),
    ("efficientvit_b2.r224_in1k", "efficientvit_mit", 24.33, {224: 82.162}, "plain"),
    ("efficientvit_b3.r224_in1k", "efficientvit_mit", 48.65, {224: 83.444}, "plain"),
    ("efficientvit_l1.r224_in1k", "efficientvit_mit", 52.65, {224: 84.464}, "plain"),
    ("efficientvit_l2.r384_in1k", "efficientvit_mit", 63.71, {384: 85.984}, "plain"),
    ("efficientvit_m0.r224_in1k", "efficientvit_msra", 2.35, {224: 63.304}, "plain"),
    ("efficientvit_m4.r224_in1k", "efficientvit_msra", 8.80, {224: 74.344}, "plain"),
    ("efficientvit_m5.r224_in1k", "efficientvit_msra", 12.47, {224: 77.092}, "plain"),
    ("shvit_s1.in1k", "shvit", 6.33, {224: 72.780}, "plain"),
    ("shvit_s2.in1k", "shvit", 11.48, {224: 75.184}, "plain"),
    ("shvit_s3.in1k", "shvit", 14.25, {224: 77.356}, "plain"),
    ("shvit_s4.in1k", "shvit", 16.59, {256: 79.362}, "plain"),
    ("efficientformerv2_s0.snap_dist_in1k", "efficientformerv2", 3.60, {224: 76.102}, "distilled"),
    ("efficientformerv2_s1.snap_dist_in1k", "efficientformerv2", 6.19, {224: 79.684}, "distilled"),
    ("efficientformerv2_s2.snap_dist_in1k", "efficientformerv2", 12.71, {224: 82.156}, "distilled"),
    ("efficientformerv2_l.snap_dist_in1k", "efficientformerv2", 26.32, {224: 83.642}, "distilled"),
    ("swiftformer_xs.dist_in1k", "swiftformer", 3.48, {224: 75.600}, "distilled"),
    ("swiftformer_s.dist_in1k", "swiftformer", 6.09, {224: 78.462}, "distilled"),
    ("swiftformer_l1.dist_in1k", "swiftformer", 12.06, {224: 80.906}, "distilled"),
    ("swiftformer_l3.dist_in1k", "swiftformer", 28.49, {224: 82.994}, "distilled"),
    ("caformer_s18.sail_in1k", "caformer", 26.34, {224: 83.664}, "plain"),
    ("caformer_s36.sail_in1k", "caformer", 39.30, {224: 84.528}, "plain"),
    ("caformer_m36.sail_in1k", "caformer", 56.20, {224: 85.242}, "plain"),
    ("caformer_b36.sail_in1k", "caformer", 98.75, {224: 85.502}, "plain"),
    ("caformer_s18.sail_in22k_ft_in1k", "caformer", 26.34, {224: 84.092}, "more data"),
    ("caformer_s36.sail_in22k_ft_in1k", "caformer", 39.30, {224: 85.780}, "more data"),
    ("caformer_m36.sail_in22k_ft_in1k", "caformer", 56.20, {224: 86.606}, "more data"),
    ("caformer_b36.sail_in22k_ft_in1k", "caformer", 98.75, {224: 87.450}, "more data"),
    ("starnet_s4.in1k", "starnet", 7.48, {224: 78.824}, "plain"),
    ("fasternet_t2.in1k", "fasternet", 14.98, {224: 78.738}, "plain"),
    ("fasternet_s.in1k", "fasternet", 31.18, {224: 81.328}, "plain"),
    ("hgnetv2_b4.ssld_stage2_ft_in1k", "hgnetv2", 19.80, {224: 83.700}, "more data"),
    ("tiny_vit_21m_224.dist_in22k_ft_in1k", "tiny_vit", 21.20, {224: 85.088}, "more data"),
    ("edgenext_small.usi_in1k", "edgenext", 5.59, {256: 81.068}, "distilled"),
    ("nextvit_small.bd_in1k", "nextvit", 31.76, {224: 82.626}, "plain"),
    ("mambaout_kobe.in1k", "mambaout", 9.14, {224: 79.986}, "plain"),
    ("rdnet_tiny.nv_in1k", "rdnet", 23.86, {224: 82.814}, "plain"),
    ("gcvit_tiny.in1k", "gcvit", 28.22, {224: 83.400}, "plain"),
    # no accuracy in timm's table yet
    ("cpubone_nano.r224_in1k", "cpubone", 6.52, {}, "plain"),
    ("cpubone_t0.r224_in1k", "cpubone", 7.54, {}, "plain"),
    ("cpubone_s0.r224_in1k", "cpubone", 8.73, {}, "plain"),
    ("cpubone_b0_bfrobust.r224_in1k", "cpubone", 10.37, {}, "plain"),
    ("cpubone_b1_bfrobust.r224_in1k", "cpubone", 12.44, {}, "plain"),
    ("cpubone_b1_dwnorm.timm_r256_in1k", "cpubone", 12.43, {}, "plain"),
    ("cpubone_b2_bfrobust.r224_in1k", "cpubone", 23.87, {}, "plain"),
    ("cpubone_b3.r224_in1k", "cpubone", 40.74, {}, "plain"),
    ("csatv2.r512_in1k", "csatv2", 11.10, {}, "plain"),
    # no ImageNet-1k head
    ("mobilenetv5_300m.gemma3n", "mobilenetv5", 294.13, {}, "more data"),
    ("fastvit_mci0.apple_mclip", "fastvit_mci", 11.41, {}, "more data"),
    ("fastvit_mci1.apple_mclip", "fastvit_mci", 21.54, {}, "more data"),
    ("fastvit_mci2.apple_mclip", "fastvit_mci", 35.82, {}, "more data"),
    ("fastvit_mci3.apple_mclip2_dfndr2b", "fastvit_mci", 125.24, {}, "more data"),
)
_OF_README: tuple[_Row, ...] = (
    ("csatv2_21m.sw_r512_in1k", "csatv2", 20.70, {512: 82.58}, "plain"),
    ("csatv2_21m.sw_r640_in1k", "csatv2", 20.70, {640: 83.13}, "plain"),
)
_NEWER_OF_2024: tuple[_Row, ...] = (
    ("repvit_m1.dist_in1k", "repvit", 5.49, {224: 78.542}, "distilled"),
    ("repvit_m2.dist_in1k", "repvit", 8.80, {224: 80.468}, "distilled"),
    ("repvit_m3.dist_in1k", "repvit", 10.68, {224: 81.494}, "distilled"),
    ("efficientvit_l2.r224_in1k", "efficientvit_mit", 63.71, {224: 85.044}, "plain"),
    (
        "mobilenetv4_hybrid_medium.e200_r256_in12k_ft_in1k",
        "mobilenetv4",
        11.07,
        {256: 82.362, 320: 82.990},
        "more data",
    ),
)

# Systems of the papers' tables, and relatives of the same family.
_COMPARED: tuple[_Row, ...] = (
    ("mobileone_s0.apple_in1k", "mobileone", 5.29, {224: 71.398}, "plain"),
    ("mobileone_s1.apple_in1k", "mobileone", 4.83, {224: 75.760}, "plain"),
    ("mobileone_s2.apple_in1k", "mobileone", 7.88, {224: 77.504}, "plain"),
    ("mobileone_s3.apple_in1k", "mobileone", 10.17, {224: 78.002}, "plain"),
    ("mobileone_s4.apple_in1k", "mobileone", 14.95, {224: 79.446}, "plain"),
    ("resnet50.a1_in1k", "resnet", 25.56, {224: 80.382}, "plain"),
    ("convnext_tiny.fb_in1k", "convnext", 28.59, {224: 82.066}, "plain"),
    ("swin_tiny_patch4_window7_224.ms_in1k", "swin", 28.29, {224: 81.388}, "plain"),
)
_COMPARED_OF_2024: tuple[_Row, ...] = (
    ("fastvit_t8.apple_in1k", "fastvit", 4.03, {256: 76.184}, "plain"),
    ("fastvit_t12.apple_in1k", "fastvit", 7.55, {256: 79.276}, "plain"),
    ("fastvit_s12.apple_in1k", "fastvit", 9.47, {256: 79.920}, "plain"),
    ("fastvit_sa12.apple_in1k", "fastvit", 11.58, {256: 80.840}, "plain"),
    ("fastvit_sa24.apple_in1k", "fastvit", 21.55, {256: 82.706}, "plain"),
    ("fastvit_sa36.apple_in1k", "fastvit", 31.53, {256: 83.504}, "plain"),
    ("fastvit_ma36.apple_in1k", "fastvit", 44.07, {256: 83.884}, "plain"),
    ("fastvit_t8.apple_dist_in1k", "fastvit", 4.03, {256: 77.172}, "distilled"),
    ("fastvit_t12.apple_dist_in1k", "fastvit", 7.55, {256: 80.364}, "distilled"),
    ("fastvit_s12.apple_dist_in1k", "fastvit", 9.47, {256: 81.074}, "distilled"),
    ("fastvit_sa12.apple_dist_in1k", "fastvit", 11.58, {256: 81.842}, "distilled"),
    ("fastvit_sa24.apple_dist_in1k", "fastvit", 21.55, {256: 83.362}, "distilled"),
    ("fastvit_sa36.apple_dist_in1k", "fastvit", 31.53, {256: 84.032}, "distilled"),
    ("fastvit_ma36.apple_dist_in1k", "fastvit", 44.07, {256: 84.606}, "distilled"),
    ("efficientnet_b1.ft_in1k", "efficientnet", 7.79, {256: 78.798, 224: 77.594}, "plain"),
    ("efficientnet_b2.ra_in1k", "efficientnet", 9.11, {288: 80.610, 256: 79.340}, "plain"),
    ("efficientnet_b3.ra2_in1k", "efficientnet", 12.23, {288: 81.474, 320: 82.298}, "plain"),
    ("tf_efficientnet_b5.aa_in1k", "efficientnet", 30.39, {456: 83.696}, "plain"),
    ("tf_efficientnet_b6.aa_in1k", "efficientnet", 43.04, {528: 84.118}, "plain"),
    ("tf_efficientnet_b7.aa_in1k", "efficientnet", 66.35, {600: 84.436}, "plain"),
    ("tf_efficientnetv2_s.in1k", "efficientnetv2", 21.46, {384: 83.896, 300: 83.172}, "plain"),
    ("resnet50.a2_in1k", "resnet", 25.56, {224: 79.828, 288: 80.780}, "plain"),
    ("resnet152.a2_in1k", "resnet", 60.19, {224: 81.764, 288: 82.620}, "plain"),
    ("resnetv2_101.a1h_in1k", "resnet", 44.54, {224: 82.042, 288: 83.002}, "plain"),
    ("resnest50d.in1k", "resnest", 27.48, {224: 80.958}, "plain"),
    ("resnest101e.in1k", "resnest", 48.28, {256: 82.916}, "plain"),
    ("regnety_040.ra3_in1k", "regnet", 20.65, {288: 83.058, 224: 82.316}, "plain"),
    ("regnety_080.pycls_in1k", "regnet", 39.18, {224: 79.882}, "plain"),
    ("regnety_160.pycls_in1k", "regnet", 83.59, {224: 80.284}, "plain"),
    ("dm_nfnet_f0.dm_in1k", "nfnet", 71.49, {256: 83.470, 192: 81.438}, "plain"),
    ("dm_nfnet_f1.dm_in1k", "nfnet", 132.63, {320: 84.696, 224: 83.444}, "plain"),
    ("convnext_small.fb_in1k", "convnext", 50.22, {224: 83.144, 288: 83.704}, "plain"),
    ("convnext_base.fb_in1k", "convnext", 88.59, {224: 83.834, 288: 84.466}, "plain"),
    ("convnext_large.fb_in22k_ft_in1k", "convnext", 197.77, {224: 86.612, 288: 87.014}, "more data"),
    ("convnext_large.fb_in22k_ft_in1k_384", "convnext", 197.77, {384: 87.456}, "more data"),
    ("poolformer_s12.sail_in1k", "poolformer", 11.92, {224: 77.244}, "plain"),
    ("poolformer_s24.sail_in1k", "poolformer", 21.39, {224: 80.300}, "plain"),
    ("poolformer_s36.sail_in1k", "poolformer", 30.86, {224: 81.432}, "plain"),
    ("poolformer_m36.sail_in1k", "poolformer", 56.17, {224: 82.104}, "plain"),
    ("poolformer_m48.sail_in1k", "poolformer", 73.47, {224: 82.462}, "plain"),
    ("efficientformer_l1.snap_dist_in1k", "efficientformer", 12.29, {224: 80.502}, "distilled"),
    ("efficientformer_l3.snap_dist_in1k", "efficientformer", 31.41, {224: 82.564}, "distilled"),
    ("efficientformer_l7.snap_dist_in1k", "efficientformer", 82.23, {224: 83.386}, "distilled"),
    ("deit_small_patch16_224.fb_in1k", "deit", 22.05, {224: 79.862}, "plain"),
    ("deit_base_patch16_224.fb_in1k", "deit", 86.57, {224: 81.980}, "plain"),
    ("deit_small_distilled_patch16_224.fb_in1k", "deit", 22.44, {224: 81.216}, "distilled"),
    ("deit_base_distilled_patch16_224.fb_in1k", "deit", 87.34, {224: 83.388}, "distilled"),
    ("deit3_large_patch16_224.fb_in1k", "deit", 304.37, {224: 84.778}, "plain"),
    ("vit_large_patch16_384.augreg_in21k_ft_in1k", "vit", 304.72, {384: 87.094}, "more data"),
    ("cait_xxs36_224.fb_dist_in1k", "cait", 17.30, {224: 79.738}, "distilled"),
    ("cait_s24_224.fb_dist_in1k", "cait", 46.92, {224: 83.484}, "distilled"),
    ("cait_xs24_384.fb_dist_in1k", "cait", 26.67, {384: 84.064}, "distilled"),
    ("swin_small_patch4_window7_224.ms_in1k", "swin", 49.61, {224: 83.228}, "plain"),
    ("swin_base_patch4_window7_224.ms_in1k", "swin", 87.77, {224: 83.610}, "plain"),
    ("swin_base_patch4_window12_384.ms_in1k", "swin", 87.90, {384: 84.476}, "plain"),
    ("swin_large_patch4_window7_224.ms_in22k_ft_in1k", "swin", 196.53, {224: 86.330}, "more data"),
    ("swin_large_patch4_window12_384.ms_in22k_ft_in1k", "swin", 196.74, {384: 87.138}, "more data"),
    ("swinv2_tiny_window8_256.ms_in1k", "swinv2", 28.35, {256: 81.824}, "plain"),
    ("swinv2_small_window8_256.ms_in1k", "swinv2", 49.73, {256: 83.844}, "plain"),
    ("swinv2_base_window16_256.ms_in1k", "swinv2", 87.92, {256: 84.608}, "plain"),
    ("twins_svt_base.in1k", "twins", 56.07, {224: 83.124}, "plain"),
    ("coatnet_0_rw_224.sw_in1k", "coatnet", 27.44, {224: 82.394}, "plain"),
    ("coatnet_1_rw_224.sw_in1k", "coatnet", 41.72, {224: 83.612}, "plain"),
    ("coatnet_0_224", "coatnet", 25.04, {}, "plain"),  # the paper's architectures; only timm's own have weights
    ("coatnet_1_224", "coatnet", 42.23, {}, "plain"),
    ("coatnet_2_224", "coatnet", 74.68, {}, "plain"),
    ("maxvit_tiny_tf_224.in1k", "maxvit", 30.92, {224: 83.422}, "plain"),
    ("maxvit_small_tf_224.in1k", "maxvit", 68.93, {224: 84.456}, "plain"),
    ("maxvit_base_tf_224.in1k", "maxvit", 119.47, {224: 84.870}, "plain"),
    ("maxvit_large_tf_224.in1k", "maxvit", 211.79, {224: 84.934}, "plain"),
    ("coat_lite_small.in1k", "coat", 19.84, {224: 82.302}, "plain"),
    ("crossvit_base_240.in1k", "crossvit", 105.03, {240: 82.228}, "plain"),
    ("visformer_small.in1k", "visformer", 40.22, {224: 82.096}, "plain"),
    # what timm takes for the names above where no tag is given
    ("convnext_tiny.in12k_ft_in1k", "convnext", 28.59, {224: 84.192, 288: 84.448}, "more data"),
    ("convnext_small.in12k_ft_in1k", "convnext", 50.22, {224: 85.164, 288: 85.324}, "more data"),
    ("convnext_base.fb_in22k_ft_in1k", "convnext", 88.59, {224: 85.816, 288: 86.298}, "more data"),
    ("efficientnet_b1.ra4_e3600_r240_in1k", "efficientnet", 7.79, {240: 80.404, 288: 81.434}, "plain"),
    ("tf_efficientnet_b5.ns_jft_in1k", "efficientnet", 30.39, {456: 86.102}, "more data"),
    ("tf_efficientnet_b6.ns_jft_in1k", "efficientnet", 43.04, {528: 86.476}, "more data"),
    ("tf_efficientnet_b7.ns_jft_in1k", "efficientnet", 66.35, {600: 86.852}, "more data"),
    ("tf_efficientnetv2_s.in21k_ft_in1k", "efficientnetv2", 21.46, {300: 83.374, 384: 84.316}, "more data"),
    ("regnety_080.ra3_in1k", "regnet", 39.18, {224: 83.162, 288: 83.940}, "plain"),
    ("regnety_160.sw_in12k_ft_in1k", "regnet", 83.59, {224: 85.594, 288: 86.032}, "more data"),
    ("resnet152.a1h_in1k", "resnet", 60.19, {224: 82.818, 288: 83.494}, "plain"),
    ("swin_small_patch4_window7_224.ms_in22k_ft_in1k", "swin", 49.61, {224: 83.330}, "more data"),
    ("swin_base_patch4_window7_224.ms_in22k_ft_in1k", "swin", 87.77, {224: 85.270}, "more data"),
    ("swin_base_patch4_window12_384.ms_in22k_ft_in1k", "swin", 87.90, {384: 86.438}, "more data"),
)


def _peers(rows: tuple[_Row, ...], source: str, *, is_new: bool) -> dict[str, Peer]:
    return {
        name: Peer(
            name=name,
            timm_name=name,
            family=family,
            accuracies=tuple(
                Accuracy(top1=top1, image_size_px=side, training=training, source=source)
                for side, top1 in top1_by_side.items()
            ),
            parameters_millions=parameters,
            is_new=is_new,
        )
        for name, family, parameters, top1_by_side, training in rows
    }


def _without_reshapes(plain: Peer) -> Peer:
    """ConvNeXt with 1x1 convolutions and channels first, as FastViT measured it (supplement, Table 4).

    The same function of the same weights, so the accuracy holds.
    """
    return Peer(
        name=f"{plain.timm_name.partition('.')[0]}_conv_mlp",
        timm_name=plain.timm_name,
        family=plain.family,
        accuracies=plain.accuracies,
        parameters_millions=plain.parameters_millions,
        options={"conv_mlp": True},
    )


_BY_TIMM_NAME: dict[str, Peer] = (
    _peers(_NEWER, _CSV, is_new=True)
    | _peers(_NEWER_OF_2024, _CSV_2024, is_new=True)
    | _peers(_OF_README, _README, is_new=True)
    | _peers(_COMPARED, _CSV, is_new=False)
    | _peers(_COMPARED_OF_2024, _CSV_2024, is_new=False)
)
PEERS: dict[str, Peer] = _BY_TIMM_NAME | {
    peer.name: peer
    for size in ("tiny", "small", "base")
    for peer in [_without_reshapes(_BY_TIMM_NAME[f"convnext_{size}.fb_in1k"])]
}

_NOT_IN_TIMM = "timm has no such model"
MISSING: dict[str, str] = {
    **dict.fromkeys(("CMT-T", "CMT-XS", "CMT-S", "CMT-B", "CvT-13", "EdgeViT-S"), _NOT_IN_TIMM),
    **dict.fromkeys(("LITv2-S", "LITv2-B", "MOAT-0", "MOAT-1", "MOAT-2"), _NOT_IN_TIMM),
    **dict.fromkeys(("iFormer", "LSNet", "EfficientViM", "MobileMamba", "RepNeXt", "RepViT-M0.6"), _NOT_IN_TIMM),
    "FastViTHD": "timm has the architecture as fastvit_mci3, with weights that have no ImageNet-1k head",
}
"""Systems of the papers' tables, and newer ones, that cannot be compared, and why."""
