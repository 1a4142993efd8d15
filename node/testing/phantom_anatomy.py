"""Shapes of the phantom's chest: cavity, lungs, mediastinum and diaphragm as signed distances in mm.

z = 0 is the height of the hila; the lungs reach from about z = -125 to z = +118. Distances are negative inside.
"""

import numpy as np

from node.testing.phantom_plane import Field, Plane, ellipsoid_section, superellipse

_Z = (-150.0, -90.0, -40.0, 0.0, 40.0, 75.0, 100.0, 118.0, 124.0)
_CAVITY_WIDTH = (121.0, 126.0, 124.0, 119.0, 108.0, 88.0, 64.0, 34.0, 8.0)
_CAVITY_DEPTH = (82.0, 86.0, 84.0, 79.0, 69.0, 57.0, 44.0, 25.0, 6.0)
_CAVITY_Y = (4.0, 2.0, 0.0, 2.0, 8.0, 14.0, 18.0, 22.0, 24.0)
_BODY_Z = (-150.0, -60.0, 20.0, 80.0, 120.0, 150.0)
_BODY_WIDTH = (157.0, 160.0, 164.0, 170.0, 172.0, 168.0)
_BODY_DEPTH = (113.0, 112.0, 107.0, 97.0, 88.0, 80.0)
_BODY_Y = (2.0, 0.0, 4.0, 12.0, 18.0, 22.0)
HEART = ((20.0, -19.0, -52.0), (55.0, 43.0, 52.0))
"""Centre and radii of the heart, mm."""
ATRIUM = ((2.0, 18.0, -22.0), (36.0, 19.0, 24.0))
_DOMES = (((-60.0, 4.0), -40.0), ((64.0, 4.0), -54.0))


def cavity_radii(z: float) -> tuple[float, float]:
    """Return half width and half depth of the thoracic cavity at height `z`."""
    return float(np.interp(z, _Z, _CAVITY_WIDTH)), float(np.interp(z, _Z, _CAVITY_DEPTH))


def cavity_y(z: float) -> float:
    """Return the middle of the cavity, front to back."""
    return float(np.interp(z, _Z, _CAVITY_Y))


def spine_y(z: float) -> float:
    """Return where the middle of the vertebral bodies lies, front to back: the kyphosis of the chest."""
    return 51.0 + 8.0 * float(np.cos(z / 90.0))


def body_distance(plane: Plane) -> Field:
    """Return the signed distance to the skin."""
    z = plane.z
    radii = float(np.interp(z, _BODY_Z, _BODY_WIDTH)), float(np.interp(z, _BODY_Z, _BODY_DEPTH))
    return superellipse(plane, (0.0, float(np.interp(z, _BODY_Z, _BODY_Y))), radii, 2.5)


def cavity_distance(plane: Plane) -> Field:
    """Return the signed distance to the inside of the chest wall, with the spine bulging in."""
    cavity = superellipse(plane, (0.0, cavity_y(plane.z)), cavity_radii(plane.z), 2.35)
    spine = superellipse(plane, (0.0, spine_y(plane.z) + 12), (30.0, 32.0), 2.2)
    return np.asarray(np.maximum(cavity, -spine), np.float32)


def mediastinum_distance(plane: Plane) -> Field:
    """Return the signed distance to the pleura around heart, great vessels and spine."""
    z = plane.z
    half_width = float(np.interp(z, (-130, -60, -20, 20, 45, 80, 120), (40, 38, 38, 33, 30, 27, 24)))
    middle = superellipse(plane, (3.0, 16.0), (half_width, 46.0), 2.2)
    front = superellipse(plane, (2.0, -52.0), (float(np.interp(z, (-60, 10, 60, 110), (6, 2.5, 6, 14))), 50.0), 2.0)
    around = np.minimum(middle, front)
    for (x, y, height), radii in (HEART, ATRIUM):
        wider = (radii[0] + 4, radii[1] + 4, radii[2] + 6)
        section = ellipsoid_section(wider, z - height)
        if section is not None:
            around = np.minimum(around, superellipse(plane, (x, y), section, 2.0))
    return around


def diaphragm_height(plane: Plane) -> Field:
    """Return the height z of the diaphragm over each pixel: two domes, the right one higher, falling to the recess."""
    domes = []
    for (x, y), top in _DOMES:
        across = ((plane.x - np.float32(x)) / 64) ** 2
        back = ((plane.y - np.float32(y)) / 82) ** 2
        fall = across[None, :] + back[:, None]
        domes.append(np.float32(top) - np.float32(62) * fall * np.sqrt(fall + np.float32(0.05)))
    return np.asarray(np.maximum(*domes), np.float32)


def lung_distance(plane: Plane) -> Field:
    """Return the signed distance to the lungs' surface; both lungs together."""
    above = (diaphragm_height(plane) - np.float32(plane.z)) * np.float32(0.7)
    return np.asarray(np.maximum(np.maximum(cavity_distance(plane), -mediastinum_distance(plane)), above), np.float32)
