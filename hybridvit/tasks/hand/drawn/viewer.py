"""A page that shows hands to turn with the mouse or a finger: one file, which works without a network."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from hybridvit.report.html import page_template
from hybridvit.tasks.hand.drawn.mesh_files import FRONT, Mesh, Skeleton
from hybridvit.tasks.hand.mano.keypoints import KEYPOINTS

CONFIG = {
    "displaylogo": False,
    "responsive": True,
    "scrollZoom": True,
    "showSendToCloud": False,  # plotly 7 has a button that sends the chart away
    "plotlyServerURL": "",
    "modeBarButtonsToRemove": ["tableRotation", "resetCameraLastSave3d"],
}
_LIGHTING = {"ambient": 0.42, "diffuse": 0.75, "specular": 0.08, "roughness": 0.7, "fresnel": 0.05}
_FROM = {"x": -2000.0, "y": 3000.0, "z": 2500.0}  # of the light
_CAMERA = {"up": {"x": 0, "y": 1, "z": 0}, "eye": {"x": 0.35, "y": 0.4, "z": 2.5}}
_AXIS = {"visible": False}
_MM = 1000


@dataclass(frozen=True, kw_only=True)
class ViewedHand:
    """A hand of a page, by its name there."""

    name: str
    mesh: Mesh


def viewer_page(hands: Sequence[ViewedHand], title: str) -> str:
    """The page as HTML: 4.9 MB, of which plotly's script takes most.

    Every name is escaped. Raises ValueError for no hands.
    """
    import plotly.graph_objects as go
    import plotly.io
    from plotly.offline import get_plotlyjs

    if not hands:
        raise ValueError("A page of no hands was asked for. Give at least one.")
    traces: list[dict[str, Any]] = []
    owners: list[int] = []
    for place, hand in enumerate(hands):
        found = _traces(hand.mesh, visible=place == 0)
        traces += found
        owners += [place] * len(found)
    figure = go.Figure(data=traces, layout=_layout())
    chart = plotly.io.to_html(
        figure, config=CONFIG, include_plotlyjs=False, full_html=False, div_id="hands", default_height="100%"
    )
    template, style = page_template("hybridvit.tasks.hand.drawn", "viewer.html.jinja")
    return template.render(
        title=title,
        chart=Markup(chart),
        style=style,
        names=[hand.name for hand in hands],
        notes=[hand.mesh.note for hand in hands],
        owners=owners,
        plotly=Markup(get_plotlyjs()),
    )


def _traces(mesh: Mesh, *, visible: bool) -> list[dict[str, Any]]:
    x, y, z = np.round(mesh.vertices * FRONT * _MM, 2).T.tolist()
    i, j, k = mesh.faces.T.tolist()
    surface = {
        "type": "mesh3d", "name": "mesh", "x": x, "y": y, "z": z, "i": i, "j": j, "k": k, "visible": visible,
        "vertexcolor": [f"rgb({r},{g},{b})" for r, g, b in mesh.colours.astype(int).tolist()], "hoverinfo": "skip",
        "lighting": _LIGHTING, "lightposition": _FROM, "flatshading": False, "showlegend": True,
    }  # fmt: skip
    return [surface, *([] if mesh.skeleton is None else [_bones(mesh.skeleton, visible=visible)])]


def _bones(skeleton: Skeleton, *, visible: bool) -> dict[str, Any]:
    points, texts, colours = [], [], []
    for bone, colour in zip(skeleton.bones, skeleton.colours.tolist(), strict=True):
        points += [*(skeleton.keypoints[list(bone)] * FRONT * _MM).round(2).tolist(), (None, None, None)]
        texts += [*(KEYPOINTS[end] for end in bone), ""]
        colours += [f"rgb({','.join(map(str, colour))})"] * 3
    x, y, z = zip(*points, strict=True)
    return {
        "type": "scatter3d", "mode": "lines+markers", "name": "skeleton", "x": x, "y": y, "z": z, "visible": visible,
        "line": {"color": colours, "width": 7}, "marker": {"color": colours, "size": 4}, "text": texts,
        "hovertemplate": "%{text}<br>%{x:.0f}, %{y:.0f}, %{z:.0f} mm<extra></extra>", "showlegend": False,
    }  # fmt: skip


def _layout() -> dict[str, Any]:
    return {
        "template": "none",
        "margin": {"l": 0, "r": 0, "t": 0, "b": 0},
        "paper_bgcolor": "#f5f5f2",
        "legend": {"x": 0.01, "y": 0.99, "bgcolor": "rgba(255,255,255,0.7)"},
        "scene": {"xaxis": _AXIS, "yaxis": _AXIS, "zaxis": _AXIS, "aspectmode": "data", "camera": _CAMERA,
                  "dragmode": "orbit"},
    }  # fmt: skip
