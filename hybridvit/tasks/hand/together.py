"""Files about several hands: those of a video in motion, and a page to turn those of pictures on."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec

import numpy as np

from hybridvit.tasks.hand.animation import animated
from hybridvit.tasks.hand.drawn.viewer import ViewedHand, viewer_page
from hybridvit.tasks.hand.mano.hand_assets import HandAssets
from hybridvit.tasks.hand.result import HandResult
from hybridvit.tasks.hand.smoothing import HandSmoother, jitter_mm

MOST_VIEWED = 24  # hands of a page


def of_video(results: Sequence[HandResult], seconds: Sequence[float]) -> dict[str, bytes]:
    """The hand of a video as animations, with every vertex and as joints that turn, and its joints' angles as CSV.

    They are smoothed where the rotations are known. "motion.json" says how much the mesh shakes before and after that,
    and how far a skin, which knows no pose blend shapes, is from it: both in millimetres.
    """
    times = [each - seconds[0] for each in seconds]
    shaken, results = results, smoothed(results, times)
    found = animated(results, times)
    files, motion = {"glb": found.morph}, {"jitter_mm": _jitter(shaken), "jitter_smoothed_mm": _jitter(results)}
    if found.skin is not None:
        files["skin.glb"] = found.skin.content
        motion |= {"skin_mean_mm": found.skin.mean_mm, "skin_largest_mm": found.skin.largest_mm}
    files["motion.json"] = json.dumps({name: round(value, 3) for name, value in motion.items()}).encode()
    if results[0].angles:
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["seconds", *results[0].angles])
        for time, result in zip(seconds, results, strict=True):
            table.writerow([f"{time:.4f}", *(f"{value:.2f}" for value in result.angles.values())])
        files["angles.csv"] = text.getvalue().encode()
    return files


def smoothed(results: Sequence[HandResult], times: Sequence[float]) -> list[HandResult]:
    """The frames of a video with less jitter, by One Euro filters of rotations, shape and camera; else as they are."""
    smoother, rows = HandSmoother(), []
    for result, time in zip(results, times, strict=True):
        if result.rotations is None or result.shape is None:
            return list(results)
        rows.append(smoother(result.rotations, result.shape, result.camera, time))
    rotations, shapes, cameras = (np.stack(column) for column in zip(*rows, strict=True))
    vertices, keypoints = moved(results[0].assets, rotations, shapes)
    columns = zip(results, vertices, keypoints, cameras, rotations, shapes, strict=True)
    return [
        replace(result, vertices=mesh, keypoints=points, camera=camera, rotations=turned, shape=shape)
        for result, mesh, points, camera, turned, shape in columns
    ]


def moved(assets: HandAssets, rotations: np.ndarray, shapes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (n v 3) and keypoints (n 21 3) of hands, in metres from the wrist."""
    import torch

    from hybridvit.tasks.hand.mano.layer import HandLayer

    with torch.no_grad():
        hands = HandLayer(assets)(torch.from_numpy(rotations), torch.from_numpy(shapes))
    wrist = hands.keypoints[:, :1]
    return (hands.vertices - wrist).numpy(), (hands.keypoints - wrist).numpy()


def _jitter(results: Sequence[HandResult]) -> float:
    return jitter_mm(np.stack([result.vertices for result in results]))


def of_pictures(names: Sequence[str], results: Sequence[HandResult]) -> dict[str, bytes]:
    """A page that shows the first of the hands, to be turned with the mouse, where plotly is there to make it."""
    if find_spec("plotly") is None:
        return {}
    hands = [ViewedHand(name=name, mesh=result.mesh) for name, result in zip(names, results, strict=True)]
    page = viewer_page(hands[:MOST_VIEWED], f"Hands in {len(hands):,} pictures")
    return {"hands.html": page.encode()}
