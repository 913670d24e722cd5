"""Augmentation of one radiograph and its mask: geometry, exposure, resolution, compression, noise, occlusion.

`strong` is aimed at what tells hospitals apart rather than patients: compression, sharpness, exposure, framing and
borders; `light` varies framing and exposure only. No mirroring: the heart lies on one side.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Gray = NDArray[np.uint8]


def augment(
    gray: Gray, mask: Gray | None, rng: np.random.Generator, strength: str = "strong"
) -> tuple[Gray, Gray | None]:
    """Vary one picture: uint8[H, W] and its mask (same size, or None) -> the same shapes. All randomness from `rng`.

    `strength` is one of `presets.AUGMENTATIONS`.
    """
    if strength == "none":
        return gray, mask
    picture = Image.fromarray(gray)
    coefficients = _affine(picture.width, picture.height, rng)
    picture = picture.transform(picture.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
    if mask is not None:
        moved = Image.fromarray(mask).transform(
            picture.size, Image.Transform.AFFINE, coefficients, Image.Resampling.NEAREST
        )
        mask = np.asarray(moved)
    if strength == "light":
        return _gamma(np.asarray(picture), np.exp(rng.uniform(-0.2, 0.2))), mask
    if rng.random() < 0.4:
        picture = _lower_resolution(picture, rng.uniform(0.35, 0.9))
    if rng.random() < 0.4:
        picture = _compress(picture, int(rng.integers(20, 90)))
    pixels = _gamma(np.asarray(picture), np.exp(rng.uniform(-0.4, 0.4)))
    if rng.random() < 0.3:
        noise = rng.normal(0, rng.uniform(1, 8), pixels.shape).astype(np.float32)
        pixels = np.clip(pixels + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        pixels = _cut_out(pixels, rng)
    return pixels, mask


def _affine(width: int, height: int, rng: np.random.Generator) -> tuple[float, ...]:
    """Output -> input map about the centre: up to 12 degrees, 0.85 to 1.2 in each axis, 6 % of the side."""
    angle = np.deg2rad(rng.uniform(-12, 12))
    scale = rng.uniform(0.85, 1.2) * np.array([rng.uniform(0.92, 1.08), 1.0])
    shift = rng.uniform(-0.06, 0.06, 2) * (width, height)
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.array([[cos, -sin], [sin, cos]]) * scale
    centre = np.array([width, height]) / 2
    offset = centre - matrix @ centre + shift
    return (matrix[0, 0], matrix[0, 1], offset[0], matrix[1, 0], matrix[1, 1], offset[1])


def _lower_resolution(picture: Image.Image, factor: float) -> Image.Image:
    small = (max(32, int(picture.width * factor)), max(32, int(picture.height * factor)))
    return picture.resize(small, Image.Resampling.BILINEAR).resize(picture.size, Image.Resampling.BILINEAR)


def _compress(picture: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer, formats=("JPEG",))


def _gamma(pixels: Gray, gamma: float) -> Gray:
    levels = 255 * (np.arange(256) / 255) ** gamma
    return np.asarray(np.rint(levels), dtype=np.uint8)[pixels]


def _cut_out(pixels: Gray, rng: np.random.Generator) -> Gray:
    """Paint one rectangle of 8 to 25 % of each side in one gray: a letter, a label, a strip of tape."""
    height, width = pixels.shape
    h, w = (int(side * rng.uniform(0.08, 0.25)) for side in pixels.shape)
    y, x = int(rng.integers(0, height - h)), int(rng.integers(0, width - w))
    painted = pixels.copy()
    painted[y : y + h, x : x + w] = rng.integers(0, 256)
    return painted
