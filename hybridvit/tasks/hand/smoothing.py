"""Less jitter in video: the One Euro filter (Casiez, Roussel, Vogel, CHI 2012), of numbers and of rotations.

A hand that rests is smoothed much, one that moves fast little, so that it does not lag behind.
"""

from dataclasses import dataclass

import numpy as np

from hybridvit.tasks.hand.mano.quaternion import nearest_rotation


@dataclass(frozen=True, kw_only=True)
class OneEuroConfig:
    """How much is smoothed."""

    rest_hz: float = 1.0  # cut-off frequency of what does not move: less is smoother
    speed_gain: float = 0.5  # by how many Hz it rises for a speed of one unit (radians for rotations) per second
    speed_hz: float = 1.0  # cut-off frequency of the speed itself


class OneEuro:
    """Smooths an array, frame after frame; each entry has a speed of its own."""

    def __init__(self, config: OneEuroConfig | None = None) -> None:
        self._config = config or OneEuroConfig()
        self._seconds = 0.0
        self._value: np.ndarray | None = None
        self._speed = np.zeros(())

    def __call__(self, value: np.ndarray, seconds: float) -> np.ndarray:
        """The value at a time, smoothed; the first one as it is. Raises ValueError unless time goes on."""
        if self._value is None:
            self._value, self._seconds = value, seconds
            return value
        elapsed = _elapsed(self._seconds, seconds)
        speed = self._distance(value) / elapsed
        self._speed = self._speed + _share(self._config.speed_hz, elapsed) * (speed - self._speed)
        cut_off = self._config.rest_hz + self._config.speed_gain * np.abs(self._speed)
        self._value = self._moved(value, _share(cut_off, elapsed))
        self._seconds = seconds
        return self._value

    def _distance(self, value: np.ndarray) -> np.ndarray:
        return value - self._value

    def _moved(self, value: np.ndarray, share: np.ndarray) -> np.ndarray:
        return self._value + share * (value - self._value)


class OneEuroRotations(OneEuro):
    """Smooths rotations (j 3 3): each goes a part of the way to the new one, and stays a rotation."""

    def _distance(self, value: np.ndarray) -> np.ndarray:
        """Angles in radians, j."""
        cosine = ((self._value * value).sum((-2, -1)) - 1) / 2
        return np.arccos(cosine.clip(-1, 1))

    def _moved(self, value: np.ndarray, share: np.ndarray) -> np.ndarray:
        return nearest_rotation(super()._moved(value, np.asarray(share)[..., None, None]))


class HandSmoother:
    """Smooths what a model says of one hand in a video: rotations (16 3 3), shape (10) and camera (3)."""

    def __init__(self, config: OneEuroConfig | None = None) -> None:
        self._rotations, self._camera = OneEuroRotations(config), OneEuro(config)
        self._shape = OneEuro(OneEuroConfig(rest_hz=0.1, speed_gain=0.0))  # a hand keeps its shape

    def __call__(
        self, rotations: np.ndarray, shape: np.ndarray, camera: np.ndarray, seconds: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The three at a time, smoothed. Raises ValueError unless time goes on."""
        return self._rotations(rotations, seconds), self._shape(shape, seconds), self._camera(camera, seconds)


def jitter_mm(frames: np.ndarray) -> float:
    """How much points (n v 3, metres) shake: the mean length of their second differences, in millimetres.

    0 for points that rest or move evenly, and for fewer than three frames.
    """
    if len(frames) < 3:
        return 0.0
    return float(np.linalg.norm(np.diff(frames, n=2, axis=0), axis=-1).mean() * 1e3)


def _elapsed(before: float, now: float) -> float:
    if now <= before:
        raise ValueError(
            f"A frame at {now:g} s follows one at {before:g} s. Show the frames of a video in their order."
        )
    return now - before


def _share(cut_off_hz: np.ndarray | float, elapsed: float) -> np.ndarray:
    """How far a first-order low-pass goes to a new value."""
    rate = 2 * np.pi * np.asarray(cut_off_hz) * elapsed
    return rate / (rate + 1)
