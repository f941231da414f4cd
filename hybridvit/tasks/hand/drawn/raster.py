"""Which face of a mesh each pixel shows: a z-buffer over all faces at once, in NumPy, without a display."""

from typing import NamedTuple

import numpy as np

NOTHING = -1  # the face of a pixel that shows none
MOST_AT_ONCE = 1 << 21  # pixels of bounding boxes: about 200 MB
_EDGE = 1e-9  # a point so far outside of a face is on its edge: none is between two faces that share it


class Raster(NamedTuple):
    """What each pixel shows."""

    face: np.ndarray  # h w, int64: NOTHING where there is none
    barycentric: (
        np.ndarray
    )  # h w 3: weights of the face's corners, in space and not on the plane; 0 where there is none
    depth: np.ndarray  # h w: infinite where there is none

    @property
    def mask(self) -> np.ndarray:
        """Where there is a face, h w."""
        return self.face != NOTHING

    def interpolated(self, values: np.ndarray, faces: np.ndarray) -> np.ndarray:
        """Values of vertices (v n) at the pixels of the mask in reading order: pixels n."""
        mask = self.mask
        return np.einsum("pc,pcn->pn", self.barycentric[mask], values[faces[self.face[mask]]])


def rasterise(points_px: np.ndarray, depth: np.ndarray, faces: np.ndarray, size: tuple[int, int]) -> Raster:
    """Draw faces (f 3) between vertices at points (v 2) and depths (v) into a picture of (height, width) pixels.

    Points are counted from the corner of the picture: the centre of its first pixel is (0.5, 0.5). Depths are distances
    along the axis of a perspective camera; for an orthographic one, let it be far away. A pixel shows the nearest face
    that its centre lies in, of equally near ones the first. Faces without area and those with a corner behind the
    camera, or nowhere, are left out.
    """
    num_pixels = size[0] * size[1]
    face, nearest = np.full(num_pixels, NOTHING), np.zeros(num_pixels)  # nearest: of 1 / depth, linear on the plane
    barycentric = np.zeros((num_pixels, 3))
    corners, depths = points_px.astype(np.float64)[faces], depth.astype(np.float64)[faces]  # f 3 2, f 3
    drawn = np.flatnonzero((depths > 0).all(1) & np.isfinite(corners).all((1, 2)) & (_areas(corners) != 0))
    planes = _planes(corners[drawn])
    inverse = 1 / depths[drawn]
    low, counts = _boxes(corners[drawn], size)
    group = np.cumsum(counts.prod(1)) // MOST_AT_ONCE
    for number in np.unique(group):
        part = np.flatnonzero(group == number)
        owner, x, y = _pixels(low[part], counts[part])
        owner = part[owner]
        weights = [a[owner] * (x + 0.5) + b[owner] * (y + 0.5) + c[owner] for a, b, c in planes]
        inside = np.flatnonzero((weights[0] >= -_EDGE) & (weights[1] >= -_EDGE) & (weights[2] >= -_EDGE))
        owner, pixel = owner[inside], (y * size[1] + x)[inside]
        shares = np.stack([each[inside] for each in weights], 1) * inverse[owner]
        near = shares.sum(1)
        seen = near > nearest[pixel]
        np.maximum.at(nearest, pixel[seen], near[seen])
        wins = np.flatnonzero(seen & (near == nearest[pixel]))[::-1]  # what is written last stays: the first face
        face[pixel[wins]] = drawn[owner[wins]]
        barycentric[pixel[wins]] = shares[wins] / near[wins, None]
    far = np.divide(1, nearest, out=np.full(num_pixels, np.inf), where=nearest > 0)
    return Raster(face.reshape(size), barycentric.reshape(*size, 3), far.reshape(size))


def _areas(corners: np.ndarray) -> np.ndarray:
    """Twice the signed area of each triangle (f 3 2)."""
    (x1, y1), (x2, y2) = (corners[:, 1] - corners[:, 0]).T, (corners[:, 2] - corners[:, 0]).T
    return x1 * y2 - y1 * x2


def _planes(corners: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Barycentric coordinates on the plane as a x + b y + c: for each of the corners the three coefficients, each f."""
    areas, planes = _areas(corners), []
    for corner in range(3):
        (x1, y1), (x2, y2) = corners[:, (corner + 1) % 3].T, corners[:, (corner + 2) % 3].T
        planes.append(((y1 - y2) / areas, (x2 - x1) / areas, (x1 * y2 - y1 * x2) / areas))
    return planes


def _boxes(corners: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The first pixel (x, y) whose centre may lie in each face, and how many there are of it on each axis."""
    limit = np.array(size[::-1])
    low = np.clip(np.ceil(corners.min(1) - 0.5), 0, limit).astype(np.int64)
    high = np.clip(np.floor(corners.max(1) - 0.5) + 1, 0, limit).astype(np.int64)
    return low, np.maximum(high - low, 0)


def _pixels(low: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pixels of boxes, one after the other: the number of the box that each is of, x, y."""
    areas = counts.prod(1)
    owner = np.repeat(np.arange(len(areas)), areas)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(areas) - areas, areas)
    y, x = np.divmod(within, counts[owner, 0])
    return owner, low[owner, 0] + x, low[owner, 1] + y
