"""Hands drawn: on the picture that they were found in, and turned, so that their depth is seen."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hybridvit.tasks.hand.drawn.raster import rasterise
from hybridvit.tasks.hand.drawn.shading import SKIN, Light, SkinMap, over, rendered
from hybridvit.tasks.hand.mano.hand_assets import HandAssets
from hybridvit.tasks.hand.mano.keypoints import BONES

FINGER_COLOURS = ((230, 60, 60), (240, 165, 30), (70, 180, 70), (50, 130, 235), (150, 90, 220))  # thumb to little
WRIST_COLOUR = (245, 245, 245)
TINT = np.array((120.0, 175.0, 235.0))  # of a mesh over a picture: no skin has this colour
TRUTH_COLOUR = (255, 30, 150)
_PAPER = (245, 245, 242)
_FAR_M = 10.0  # where an orthographic camera stands
_OPACITY = 0.72
_MOST_PX = 768  # of a side that is rendered; larger ones are enlarged
_SMOOTH_PX = 400  # up to which edges are smooth
_FINE = 3  # times as large are lines drawn, and made smaller, for smooth edges


class Placed(NamedTuple):
    """A hand on a picture."""

    vertices: np.ndarray  # v 3, metres, root-relative, in the camera's axes
    points_px: np.ndarray  # v 2: where the vertices lie, from the picture's corner


class _Region(NamedTuple):
    """The part of a picture that something is drawn in, and in what size."""

    box: tuple[int, int, int, int]  # left, top, right, bottom
    scale: float

    @property
    def size(self) -> tuple[int, int]:
        """Height, width in pixels that are drawn."""
        left, top, right, bottom = self.box
        return max(1, round((bottom - top) * self.scale)), max(1, round((right - left) * self.scale))

    def points(self, points_px: np.ndarray) -> np.ndarray:
        left, top, right, bottom = self.box
        height, width = self.size
        return (points_px - (left, top)) * (width / (right - left), height / (bottom - top))

    def paste(self, picture: Image.Image, layer: Image.Image) -> None:
        """Put a layer (RGBA) over the part of the picture."""
        left, top, right, bottom = self.box
        layer = layer.resize((right - left, bottom - top), Image.Resampling.BILINEAR)
        picture.paste(layer.convert("RGB"), (left, top), layer.getchannel("A"))


def bone_colours() -> np.ndarray:
    """The colour of the finger of each bone (20 3, bytes)."""
    return np.array([FINGER_COLOURS[(end - 1) // 4] for _, end in BONES])


def draw_mesh(picture: Image.Image, hand: Placed, assets: HandAssets, skin: SkinMap) -> None:
    """Lay the mesh over a picture (RGB), which shows through."""
    region = _region(picture, hand.points_px)
    if region is None:
        return
    points, samples = region.points(hand.points_px), 2 if max(region.size) <= _SMOOTH_PX else 1
    drawn = rendered(_at_distance(hand.vertices), points, assets.faces, skin, region.size, colour=TINT, samples=samples)
    colour, opacity = drawn[..., :3], drawn[..., 3:]
    plain = np.divide(colour, opacity, out=np.zeros_like(colour), where=opacity > 0)
    layer = np.concatenate((plain, _OPACITY * opacity), axis=2)
    region.paste(picture, Image.fromarray((255 * layer).round().clip(0, 255).astype(np.uint8), "RGBA"))


def draw_skeleton(picture: Image.Image, keypoints_px: np.ndarray, depth: np.ndarray) -> None:
    """Draw the bones between keypoints (21 2, from the picture's corner) in the colours of their fingers.

    What has the larger depth (21) is drawn first.
    """
    region = _region(picture, keypoints_px)
    if region is None:
        return
    height, width = (_FINE * side for side in region.size)
    points = region.points(keypoints_px) * _FINE
    thick = max(_FINE, np.ptp(points, axis=0).max() / 55)
    layer = Image.new("RGBA", (width, height))
    pen = ImageDraw.Draw(layer)
    colours = bone_colours()
    for bone in sorted(range(len(BONES)), key=lambda number: -depth[list(BONES[number])].mean()):
        ends = [tuple(points[end]) for end in BONES[bone]]
        pen.line(ends, fill=(*colours[bone], 255), width=round(thick))
        _dot(pen, points[BONES[bone][1]], thick * 0.85, tuple(colours[bone]))
    _dot(pen, points[0], thick, WRIST_COLOUR)
    region.paste(picture, layer.resize((region.size[1], region.size[0]), Image.Resampling.BOX))


def draw_outline(picture: Image.Image, hand: Placed, faces: np.ndarray, colour: tuple[int, int, int]) -> None:
    """Draw the edge of a hand."""
    region = _region(picture, hand.points_px)
    if region is None:
        return
    depth = hand.vertices[:, 2] + _FAR_M
    inside = rasterise(region.points(hand.points_px), depth, faces, region.size).mask
    thick = max(1, round(max(region.size) / 200))
    grown = inside
    for _ in range(thick):
        grown = _grown(grown)
    layer = np.zeros((*inside.shape, 4), np.uint8)
    layer[grown & ~inside] = (*colour, 255)
    region.paste(picture, Image.fromarray(layer, "RGBA"))


def turned_view(
    hand: Placed, assets: HandAssets, skin: SkinMap, degrees: float, side: int, truth: Placed | None = None
) -> Image.Image:
    """The hand by itself, turned about the upright axis, in a square picture; the truth as an outline."""
    angle = np.radians(degrees)
    turn = np.array(((np.cos(angle), 0, np.sin(angle)), (0, 1, 0), (-np.sin(angle), 0, np.cos(angle))))
    centre = (hand.vertices.max(0) + hand.vertices.min(0)) / 2
    scale = 0.85 * side / max(0.05, np.linalg.norm(hand.vertices - centre, axis=1).max() * 2)
    vertices = _at_distance((hand.vertices - centre) @ turn.T)
    points = vertices[:, :2] * scale + side / 2
    drawn = rendered(vertices, points, assets.faces, skin, (side, side), colour=SKIN, light=Light(ambient=0.5))
    picture = Image.fromarray(over(np.full((side, side, 3), _PAPER), drawn))
    if truth is not None:
        moved = (truth.vertices - centre) @ turn.T
        draw_outline(picture, Placed(moved, moved[:, :2] * scale + side / 2), assets.faces, TRUTH_COLOUR)
    return picture


def draw_caption(picture: Image.Image, text: str) -> None:
    """Write a line at the lower edge, where the picture is wide enough for it."""
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(max(10, picture.height / 45))
    left, top, right, bottom = pen.textbbox((0, 0), text, font)
    if right - left + 8 > picture.width or bottom - top + 6 > picture.height / 4:
        return
    place = (4, picture.height - bottom - 4)
    box = pen.textbbox(place, text, font)
    pen.rectangle((box[0] - 2, box[1] - 2, box[2] + 2, box[3] + 2), fill=(0, 0, 0))
    pen.text(place, text, fill=(255, 255, 255), font=font)


def beside(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures in a row, all as high as the first."""
    height = pictures[0].height
    fitted = [each.resize((max(1, round(each.width * height / each.height)), height)) for each in pictures]
    row = Image.new("RGB", (sum(each.width for each in fitted), height))
    left = 0
    for each in fitted:
        row.paste(each, (left, 0))
        left += each.width
    return row


def _region(picture: Image.Image, points_px: np.ndarray) -> _Region | None:
    """The part of a picture around points; None if they lie outside."""
    pad = 4 + np.ptp(points_px, axis=0).max() / 40
    low = np.floor(points_px.min(0) - pad).clip(0, picture.size).astype(int)
    high = np.ceil(points_px.max(0) + pad).clip(0, picture.size).astype(int)
    if not np.isfinite(points_px).all() or (high <= low).any():
        return None
    return _Region((low[0], low[1], high[0], high[1]), min(1.0, _MOST_PX / (high - low).max()))


def _at_distance(vertices: np.ndarray) -> np.ndarray:
    """Before an orthographic camera."""
    return vertices + np.array((0.0, 0.0, _FAR_M))


def _dot(pen: ImageDraw.ImageDraw, centre: np.ndarray, radius: float, colour: tuple[int, ...]) -> None:
    box = (*(centre - radius), *(centre + radius))
    pen.ellipse(box, fill=(*colour, 255), outline=(30, 30, 30, 255))


def _grown(mask: np.ndarray) -> np.ndarray:
    """The mask and all pixels beside it."""
    padded = np.pad(mask, 1)
    return padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:] | mask
