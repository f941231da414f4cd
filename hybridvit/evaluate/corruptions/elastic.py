"""The elastic transform of ImageNet-C, with its constants: the package's own leaves out the affine part."""

import numpy as np

STRENGTHS = (
    (488.0, 170.8, 24.4),
    (488.0, 19.52, 48.8),
    (12.2, 2.44, 4.88),
    (17.08, 2.44, 4.88),
    (29.28, 2.44, 4.88),
)
"""Displacement in pixels, its smoothness (sigma, in pixels) and the reach of the affine part, by severity.

They are multiples of 244, a known slip in the generator that ImageNet-C was made with, and kept: its pictures have it.
"""
TRUNCATE = 3.0  # sigmas at which the smoothing ends


def elastic_transform(pixels: np.ndarray, severity: int, generator: np.random.RandomState) -> np.ndarray:
    """Move three corners of a centred square at random, and then every pixel by a smooth field: h w 3 -> h w 3, bytes.

    Hendrycks and Dietterich, Benchmarking Neural Network Robustness (2019), appendix B, after Simard et al. (2003).
    """
    import cv2
    from scipy.ndimage import gaussian_filter, map_coordinates

    displacement_px, sigma_px, reach_px = STRENGTHS[severity - 1]
    height, width = pixels.shape[:2]
    image = pixels.astype(np.float32) / 255
    centre, half = np.array((height, width), np.float32) // 2, min(height, width) // 3
    corners = np.array([centre + half, (centre[0] + half, centre[1] - half), centre - half], np.float32)
    moved = corners + generator.uniform(-reach_px, reach_px, size=corners.shape).astype(np.float32)
    affine = cv2.getAffineTransform(corners, moved)
    turned = np.asarray(cv2.warpAffine(image, affine, (width, height), borderMode=cv2.BORDER_REFLECT_101))

    def smooth_field() -> np.ndarray:
        """h w: by how many pixels each is moved along one axis."""
        noise = generator.uniform(-1, 1, size=(height, width))
        return gaussian_filter(noise, sigma_px, mode="reflect", truncate=TRUNCATE) * displacement_px

    across, down = smooth_field().astype(np.float32), smooth_field().astype(np.float32)
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    places = np.stack([rows + down, columns + across])
    channels = [map_coordinates(turned[..., channel], places, order=1, mode="reflect") for channel in range(3)]
    return np.clip(np.stack(channels, axis=-1) * 255, 0, 255).astype(np.uint8)
