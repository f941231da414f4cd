"""The hand of a video as animated meshes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hybridvit.tasks.hand.drawn.mesh_files import Skin, SkinnedFile, morphed_glb, skinned, skinned_glb
from hybridvit.tasks.hand.result import HandResult


class Animation(NamedTuple):
    """A video's hand in two forms of GLB."""

    morph: bytes  # every vertex as it was found; 19 kB a frame
    skin: SkinnedFile | None  # joints that turn; None where the rotations are not known


def animated(results: Sequence[HandResult], seconds: Sequence[float]) -> Animation:
    """The results of a video's frames, all of one side, at their times from 0 on.

    The hand moves as it does across the picture; how far it is away is not known, so that it stays at one depth. The
    joints have the mean shape of all frames. Raises ValueError for no results, or times that do not increase.
    """
    if not results:
        raise ValueError("An animation of no frames was asked for. Give at least one result.")
    mesh, times = results[0].mesh, np.asarray(seconds, np.float64)
    frames = np.stack([result.vertices + _place(result) for result in results])
    morph = morphed_glb(mesh, frames, times)
    rotations = [result.rotations for result in results if result.rotations is not None]
    shapes = [result.shape for result in results if result.shape is not None]
    if not len(rotations) == len(shapes) == len(results):
        return Animation(morph, None)
    skin, turns = Skin.of(results[0].assets, np.mean(shapes, axis=0)), np.stack(rotations)
    roots = (frames - skinned(skin, skin.weights, turns, np.zeros((len(frames), 3)))).mean(1)
    return Animation(morph, skinned_glb(mesh, skin, turns, roots, frames, times))


def _place(result: HandResult) -> np.ndarray:
    """Where the wrist is in the picture, in metres from its centre."""
    height, width = result.frame.picture_size
    per_metre = result.camera[0] * np.array(result.frame.crop[2:]) / 2
    return np.append((result.pixels(np.zeros((1, 3)))[0] - (width / 2, height / 2)) / per_metre, 0.0)
