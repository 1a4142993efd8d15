"""Paint one slice of the phantom: from the air inward to the nodules, in Hounsfield units."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node.testing import phantom_anatomy as anatomy
from node.testing.phantom_nodules import CORE_SHARE, PhantomNodule, nodule_coverage
from node.testing.phantom_noise import Noise
from node.testing.phantom_organs import VERTEBRA_MM, Organs
from node.testing.phantom_plane import Field, Plane, blend, ellipsoid_section, paint, superellipse
from node.testing.phantom_tubes import coverage

RIGHT_LUNG, LEFT_LUNG, NODULE_BASE = 1, 2, 10
"""Truth labels; nodule n has the label NODULE_BASE + n. Lung labels hold vessels and airways inside the lung."""
AIR, LUNG, FAT, MUSCLE, BLOOD, MARROW, CORTEX = -1000.0, -862.0, -98.0, 52.0, 44.0, 190.0, 780.0
_TABLE_Y = 118.0


@dataclass(frozen=True, slots=True)
class Chest:
    """Everything that a slice is painted from."""

    organs: Organs
    nodules: tuple[PhantomNodule, ...]
    noise: Noise
    noise_hu: float

    def slice_at(self, plane: Plane, index: int) -> tuple[Field, NDArray[np.uint8]]:
        """Return HU [row, column] and truth labels of one slice."""
        lungs = anatomy.lung_distance(plane)
        texture = self.noise.texture(plane.z, len(plane.x))
        image = _wall(plane, texture)
        _abdomen(image, plane, texture)
        _mediastinal_fat(image, plane)
        backward = np.clip((plane.y + 60) * np.float32(0.28), 0, 45)[:, None]
        paint(image, lungs, (LUNG + backward + 13 * texture).astype(np.float32), plane.edge)
        self._tubes(image, plane)
        _heart(image, plane)
        _spine(image, plane, texture)
        labels = np.where(lungs < 0, np.where(plane.x[None, :] < 0, RIGHT_LUNG, LEFT_LUNG), 0).astype(np.uint8)
        for nodule in self.nodules:
            _nodule(image, labels, nodule, plane)
        image += np.float32(self.noise_hu) * self.noise.of_slice(index, len(plane.x))
        return image, labels

    def _tubes(self, image: Field, plane: Plane) -> None:
        organs = self.organs
        blend(image, coverage(organs.nodes, plane), MUSCLE - 10)
        blend(image, coverage(organs.gullet, plane), MUSCLE - 16)
        blend(image, coverage(organs.gullet.grown(-5.0), plane), -500.0)
        blend(image, coverage(organs.blood, plane), BLOOD)
        blend(image, coverage(organs.airways.grown(1.0), plane), MUSCLE - 30)
        blend(image, coverage(organs.airways, plane), AIR + 15)
        blend(image, coverage(organs.cartilage, plane), 95.0)
        blend(image, coverage(organs.bones, plane), CORTEX)
        blend(image, coverage(organs.bones.grown(-1.6, 0.8), plane), MARROW)


def _wall(plane: Plane, texture: Field) -> Field:
    """Return air, table, skin, fat, muscle with fatty planes, filling the whole chest wall."""
    size = len(plane.x)
    image = np.full((size, size), AIR, np.float32)
    sag = np.float32(_TABLE_Y) - ((plane.x / 9) ** 2 / 10)[None, :]
    depth = plane.y[:, None] - sag
    wide = (np.abs(plane.x) - 205)[None, :]
    paint(image, np.maximum(np.maximum(-depth, depth - 22), wide), -945.0, plane.edge)
    paint(image, np.maximum(np.abs(np.abs(depth - 11) - 10.4) - 0.8, wide), -120.0, plane.edge)
    body = anatomy.body_distance(plane)
    paint(image, body, 20.0, plane.edge)
    paint(image, body + np.float32(1.8), (FAT + 5 * texture).astype(np.float32), plane.edge)
    flank = 11 + 6 * np.clip(np.abs(plane.x) / 90 - 0.4, 0, 1.2)[None, :]
    strand = 0.35 * np.clip((texture - 1.0) * 1.5, 0, 1)
    muscle = (MUSCLE + strand * (FAT - MUSCLE)).astype(np.float32)
    paint(image, body + flank.astype(np.float32), muscle, 1.6)
    wave = 3.5 * np.sin(plane.x / 19)[None, :] + 2.5 * np.sin(plane.y / 13)[:, None]
    paint(image, np.abs(body + (flank + 11 + wave).astype(np.float32)) - np.float32(1.1), FAT + 25, 1.6)
    for x in (-1.0, 1.0):
        armpit = superellipse(plane, (x * (132 + 0.05 * plane.z), 12.0), (17.0, 30.0), 2.0)
        paint(image, armpit + np.float32(abs(plane.z - 70.0) * 0.35), (FAT + 6 * texture).astype(np.float32), 3.0)
    return image


def _abdomen(image: Field, plane: Plane, texture: Field) -> None:
    """Paint what lies below the diaphragm: fat, liver, spleen, stomach with its gas."""
    if plane.z > -30:
        return
    under = np.maximum(anatomy.cavity_distance(plane), np.float32(plane.z) - anatomy.diaphragm_height(plane))
    paint(image, under, FAT, 2.0)
    inner = under + np.float32(2.5)
    liver = np.maximum(inner, (plane.x[None, :] - 22 + 0.35 * plane.y[:, None]).astype(np.float32))
    paint(image, liver, (58 + 3 * texture).astype(np.float32), plane.edge)
    for center, radii, value in (
        ((78.0, 42.0, -112.0), (30.0, 30.0, 46.0), 50.0),
        ((56.0, -18.0, -108.0), (42.0, 36.0, 40.0), 28.0),
        ((52.0, -32.0, -100.0), (24.0, 14.0, 24.0), AIR + 40),
    ):
        section = ellipsoid_section(radii, plane.z - center[2])
        if section is not None:
            shape = superellipse(plane, center[:2], section, 2.0)
            paint(image, np.maximum(shape, inner), value, plane.edge)


def _mediastinal_fat(image: Field, plane: Plane) -> None:
    inside = np.maximum(anatomy.mediastinum_distance(plane), anatomy.cavity_distance(plane))
    if plane.z < -30:
        inside = np.maximum(inside, anatomy.diaphragm_height(plane) - np.float32(plane.z))
    paint(image, inside, FAT + 4, plane.edge)


def _heart(image: Field, plane: Plane) -> None:
    """Paint the heart's muscle and chambers over what runs into it."""
    for ((x, y, z), radii), value in ((anatomy.HEART, 52.0), (anatomy.ATRIUM, BLOOD)):
        section = ellipsoid_section(radii, plane.z - z)
        if section is not None:
            outline = superellipse(plane, (x, y), section, 2.0)
            if plane.z < -30:
                outline = np.maximum(outline, anatomy.diaphragm_height(plane) - np.float32(plane.z))
            paint(image, outline, value, plane.edge)
    for (x, y, z), radii in (((38.0, -16.0, -56.0), (22.0, 22.0, 34.0)), ((-8.0, -26.0, -48.0), (20.0, 22.0, 36.0))):
        section = ellipsoid_section(radii, plane.z - z)
        if section is not None:
            paint(image, superellipse(plane, (x, y), section, 2.0), BLOOD - 4, 4.0)


def _spine(image: Field, plane: Plane, texture: Field) -> None:
    """Paint vertebral body or disc, and the canal."""
    y = anatomy.spine_y(plane.z)
    from_middle = abs((plane.z - 118.0 + VERTEBRA_MM / 2) % VERTEBRA_MM - VERTEBRA_MM / 2)
    body = superellipse(plane, (0.0, y), (17.5, 14.0), 2.3)
    bone = float(np.clip((VERTEBRA_MM / 2 - 2.6 - from_middle) / max(plane.thickness, 1.0) + 0.5, 0, 1))
    plate = float(np.clip(1 - abs(VERTEBRA_MM / 2 - 3.0 - from_middle) / 2.0, 0, 1))
    shell = 75.0 + bone * (520.0 - 75.0)
    core = 75.0 + bone * (165.0 - 75.0) + plate * 330.0
    paint(image, body, shell, plane.edge)
    paint(image, body + np.float32(1.6), (core + 26 * bone * texture).astype(np.float32), plane.edge)
    paint(image, superellipse(plane, (0.0, y + 22), (10.5, 9.0), 2.0), 30.0, plane.edge)
    paint(image, superellipse(plane, (0.0, y + 22), (5.0, 4.0), 2.0), 42.0, plane.edge)


def _nodule(image: Field, labels: NDArray[np.uint8], nodule: PhantomNodule, plane: Plane) -> None:
    found = nodule_coverage(nodule, plane)
    if found is None:
        return
    filled, place = found
    blend(image[place], filled, nodule.density_hu)
    labels[place][filled >= 0.5] = NODULE_BASE + nodule.ordinal
    core = nodule_coverage(nodule, plane, CORE_SHARE) if nodule.kind == "part_solid" else None
    if core is not None:
        blend(image[core[1]], core[0], MUSCLE - 20)
