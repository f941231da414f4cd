"""What hands are judged by. Needs no torch."""

from hybridvit.task import Quantity

QUANTITIES = (
    Quantity(
        name="pa_mpjpe",
        title="PA-MPJPE",
        unit="mm",
        higher_is_better=False,
        note="the mean distance of keypoints after alignment (Procrustes, with scale), as FreiHAND's script has it",
    ),
    Quantity(
        name="pa_mpvpe",
        title="PA-MPVPE",
        unit="mm",
        higher_is_better=False,
        note="the same of the vertices of the mesh",
    ),
    Quantity(name="f5", title="F@5", unit="", decimals=3, note="F-score of aligned meshes at 5 mm"),
    Quantity(name="f15", title="F@15", unit="", decimals=3, note="the same at 15 mm"),
    Quantity(
        name="auc_keypoints",
        title="PA-AUC of keypoints",
        unit="",
        decimals=3,
        note="the area under the share of aligned keypoints within 0 to 50 mm",
    ),
    Quantity(name="auc_vertices", title="PA-AUC of vertices", unit="", decimals=3, note="the same of vertices"),
)
"""The headline first."""
