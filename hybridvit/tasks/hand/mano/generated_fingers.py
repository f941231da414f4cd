"""The measures of the generated hand, in millimetres: where fingers begin, where they point and how thick they are.

Axes are MANO's: a right hand whose fingers point to -x, the back of the hand up (+y), the thumb to +z.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

WRIST = np.array([12.0, 0.0, 0.0])


@dataclass(frozen=True, kw_only=True, eq=False)
class Finger:
    """A straight finger of three phalanges."""

    name: str
    base: tuple[float, float, float]  # its first joint
    towards: tuple[float, float, float]
    phalanges: tuple[float, float, float]
    radii: tuple[float, float, float, float]  # at the three joints and the tip
    rings: int  # of the mesh

    @cached_property
    def axis(self) -> np.ndarray:
        """Where it points, of length 1."""
        return np.array(self.towards) / np.linalg.norm(self.towards)

    @cached_property
    def joints(self) -> np.ndarray:
        """The three joints and the tip: 4 x 3."""
        return np.array(self.base) + np.cumsum([0.0, *self.phalanges])[:, None] * self.axis

    def along(self, points: np.ndarray) -> np.ndarray:
        """How far points (n 3) lie from its first joint along its axis: n."""
        return (points - self.joints[0]) @ self.axis

    def beside(self, points: np.ndarray) -> np.ndarray:
        """The part of that way which is across the axis: n 3."""
        return points - self.joints[0] - self.along(points)[:, None] * self.axis

    def ring_places(self) -> np.ndarray:
        """How far along the axis the mesh has its rings: closer where the finger bends, and at its end."""
        first, second, third = self.phalanges
        start = 13.0 if self.name == "thumb" else 7.0
        places = [start, (start + first - 5.5) / 2, first - 5.5, first, first + 5.5]
        last = first + second
        if self.name == "middle":
            places.append((first + 5.5 + last - 4.5) / 2)
        places += [last - 4.5, last, last + 4.5]
        left = self.rings - len(places)
        places += list(last + 4.5 + (third - 4.5 - 0.9) * np.sqrt(np.arange(1, left + 1) / left))
        return np.array(places)

    def radius_at(self, place: np.ndarray) -> np.ndarray:
        """The radius at distances along the axis; the end is round."""
        ends = np.cumsum([0.0, *self.phalanges])
        radius = np.interp(place, ends, self.radii)
        round_end = np.clip(place - (ends[-1] - self.radii[-1]), 0, self.radii[-1])
        return np.minimum(radius, np.sqrt(np.maximum(self.radii[-1] ** 2 - round_end**2, 0)))


FINGERS = (
    Finger(name="thumb", base=(-24, -9, 27), towards=(-0.62, -0.22, 0.75), phalanges=(44, 32, 27),
           radii=(13.5, 10.6, 9.6, 7.4), rings=11),
    Finger(name="index", base=(-88, 2, 22), towards=(-1, -0.03, 0.10), phalanges=(40, 24, 21),
           radii=(9.6, 8.6, 7.6, 6.0), rings=11),
    Finger(name="middle", base=(-92, 3, 2), towards=(-1, -0.02, 0.01), phalanges=(45, 28, 22),
           radii=(9.8, 8.8, 7.8, 6.2), rings=12),
    Finger(name="ring", base=(-87, 2, -18), towards=(-1, -0.03, -0.08), phalanges=(41, 26, 22),
           radii=(9.2, 8.2, 7.2, 5.8), rings=11),
    Finger(name="little", base=(-77, -1, -37), towards=(-1, -0.05, -0.20), phalanges=(32, 19, 18),
           radii=(8.2, 7.2, 6.4, 5.2), rings=11),
)  # fmt: skip
"""In the order of keypoints."""
