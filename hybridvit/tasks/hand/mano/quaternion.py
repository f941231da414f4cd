"""Rotations in NumPy, for answers and files: as quaternions, as axes with angles, and the nearest one to a matrix.

See rotation.py for tensors.
"""

import numpy as np


def quaternions(rotations: np.ndarray) -> np.ndarray:
    """Rotations (n 3 3) as x, y, z, w (n 4), each on the side of the one before it, so that none turns the long way."""
    r = rotations
    trace = r[:, 0, 0] + r[:, 1, 1] + r[:, 2, 2]
    diagonal = np.stack((r[:, 0, 0], r[:, 1, 1], r[:, 2, 2], trace), 1)
    sums = np.empty((len(r), 4, 4))  # 4 times the products of each two of x, y, z, w
    for i in range(3):
        for j in range(3):
            sums[:, i, j] = r[:, i, j] + r[:, j, i] if i != j else 1 - trace + 2 * r[:, i, i]
        j, k = (i + 1) % 3, (i + 2) % 3
        sums[:, i, 3] = sums[:, 3, i] = r[:, k, j] - r[:, j, k]
    sums[:, 3, 3] = 1 + trace
    found = np.take_along_axis(sums, diagonal.argmax(1)[:, None, None], 1)[:, 0]  # the row of the largest
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    flips = np.sign((found[1:] * found[:-1]).sum(1))
    found[1:] *= np.where(flips == 0, 1, flips).cumprod()[:, None]
    return found


def axis_angles(rotations: np.ndarray) -> np.ndarray:
    """Rotations (n 3 3) as the shortest vectors along their axes, as long as their angles in radians (n 3)."""
    each = np.concatenate([quaternions(one) for one in rotations[:, None]])
    each = np.where(each[:, 3:] < 0, -each, each)
    length = np.linalg.norm(each[:, :3], axis=1, keepdims=True)
    angle = 2 * np.arctan2(length, each[:, 3:])
    return each[:, :3] * np.divide(angle, length, out=np.full_like(length, 2.0), where=length > 1e-12)


def nearest_rotation(matrices: np.ndarray) -> np.ndarray:
    """The rotations (... 3 3) nearest to matrices, by the sum of squares."""
    left, _, right = np.linalg.svd(matrices)
    left[..., -1] *= np.sign(np.linalg.det(left @ right))[..., None]
    return left @ right
