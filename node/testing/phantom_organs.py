"""Vessels, airways, bones and lumps of the phantom: where they run, as tubes."""

from dataclasses import dataclass

import numpy as np

from node.testing.phantom_anatomy import cavity_radii, cavity_y, lung_distance, spine_y
from node.testing.phantom_plane import plane_at
from node.testing.phantom_trees import TreeRoot, beside, grow_tree
from node.testing.phantom_tubes import Points, Tubes

VERTEBRA_MM = 25.0
_LOW, _HIGH = -160.0, 160.0


@dataclass(frozen=True, slots=True)
class Organs:
    """All tubes of the chest."""

    blood: Tubes
    airways: Tubes
    """Lumina; the walls are a millimetre around them."""
    gullet: Tubes
    bones: Tubes
    cartilage: Tubes
    nodes: Tubes
    """Lymph nodes in the mediastinal fat."""


def build_organs(seed: int) -> Organs:
    """Return the organs; `seed` places the branches in the lungs."""
    generator = np.random.default_rng([seed, 3])
    right, left = lung_points(generator, 5200)
    airways, blood = [_windpipe()], [_great_vessels()]
    for targets, side in ((right, -1.0), (left, 1.0)):
        hilum = (side * 46.0, 18.0, 4.0 if side < 0 else 0.0)
        bronchi = grow_tree(TreeRoot(hilum, 5.2, 1.15), _some(generator, targets, 90))
        arteries = grow_tree(TreeRoot(hilum, 6.6, 0.5), _some(generator, targets, 1100))
        veins = grow_tree(TreeRoot((side * 36.0, 16.0, -16.0), 6.0, 0.5), _some(generator, targets, 900))
        airways.append(bronchi)
        blood += [arteries, veins, beside(bronchi, (side * 0.9, -1.9, 0.7))]
    nodes = _lymph_nodes(generator)
    bones, cartilage = _ribs()
    return Organs(
        Tubes.joined(blood), Tubes.joined(airways), _gullet(), Tubes.joined([bones, *_small_bones()]), cartilage, nodes
    )


def lung_points(generator: np.random.Generator, count: int) -> tuple[Points, Points]:
    """Return random points at least 4 mm inside the right and the left lung."""
    found: list[Points] = []
    for z in np.arange(-124.0, 120.0, 4.0):
        plane = plane_at(float(z), size=64, pixel=4.4, thickness=1.0)
        row, column = np.nonzero(lung_distance(plane) < -4)
        shake = generator.uniform(-2, 2, (len(row), 3))
        found.append((np.stack([plane.x[column], plane.y[row], np.full(len(row), z)], 1) + shake).astype(np.float32))
    points = generator.permutation(np.concatenate(found))[:count]
    return points[points[:, 0] < 0], points[points[:, 0] >= 0]


def _some(generator: np.random.Generator, points: Points, count: int) -> Points:
    return points[generator.choice(len(points), min(count, len(points)), replace=False)]


def _windpipe() -> Tubes:
    carina = (1.0, 18.0, 32.0)
    return Tubes.joined(
        [
            Tubes.along([(0, 8, _HIGH), (0, 12, 80), carina], (8.5, 8.5, 8.5)),
            Tubes.along([carina, (-22, 18, 16), (-46, 18, 4)], (7.2, 6.6, 5.2)),
            Tubes.along([carina, (24, 20, 12), (46, 18, 0)], (6.6, 6.0, 5.2)),
        ]
    )


def _great_vessels() -> Tubes:
    return Tubes.joined(
        [
            Tubes.along([(0, -8, -30), (-10, -18, 5), (-8, -18, 38), (2, -8, 52)], (15, 15.5, 15, 13.5)),
            Tubes.along([(2, -8, 52), (12, 8, 58), (20, 28, 54), (25, 38, 38)], (13.5, 13, 12.5, 12)),
            Tubes.along([(25, 38, 38), (24, 40, -40), (13, 36, _LOW)], (12, 11.5, 10.5)),
            Tubes.along([(16, -32, -12), (18, -22, 16), (22, -4, 24), (48, 14, 14)], (14, 13.5, 12, 7.5)),
            Tubes.along([(18, -18, 18), (0, 0, 14), (-24, 6, 8), (-46, 14, 2)], (11, 10.5, 10, 7)),
            Tubes.along([(-22, -6, -25), (-24, -10, 30), (-20, -8, 80)], (9.5, 9, 8)),
            Tubes.along([(-20, -8, 80), (-34, -2, 118), (-60, 0, _HIGH)], (7, 6.5, 6)),
            Tubes.along([(-20, -14, 68), (10, -18, 78), (36, -4, 112), (60, 0, _HIGH)], (6.5, 6, 6, 6)),
            Tubes.along([(0, -6, 56), (-14, 0, 92), (-22, 6, _HIGH)], (6, 5.5, 4)),
            Tubes.along([(12, 6, 58), (14, 8, 96), (18, 10, _HIGH)], (4.5, 4, 3.5)),
            Tubes.along([(18, 24, 56), (22, 22, 96), (38, 14, _HIGH)], (5, 4.5, 4)),
            Tubes.along([(-26, 10, -70), (-24, 0, -40)], (12, 12)),
            Tubes.along([(-20, 34, _LOW), (-16, 40, 30), (-20, 20, 42)], (3, 3.5, 4)),
        ]
    )


def _gullet() -> Tubes:
    return Tubes.along([(4, 26, _HIGH), (3, 31, 30), (4, 36, -40), (14, 22, -120)], (6.5, 7, 7.5, 8))


def _lymph_nodes(generator: np.random.Generator) -> Tubes:
    places = np.array([(-22, 8, 44), (-14, 26, 26), (8, 30, 10), (-6, -30, 50), (24, -6, 44), (-34, 22, -10)], float)
    start = places + generator.normal(0, 1.5, places.shape)
    radius = generator.uniform(2.2, 4.2, len(places))
    return Tubes.between(start, start + generator.normal(0, 2.5, places.shape), radius, radius * 0.9)


def _ribs() -> tuple[Tubes, Tubes]:
    """Return bony ribs and their cartilage: from the spine, falling forward, to the breastbone."""
    bony, soft = [], []
    for number in range(-2, 12):
        head = 118.0 - VERTEBRA_MM * number
        for side in (-1.0, 1.0):
            path, radii = _rib(head, side)
            cut = int(len(path) * 0.80)
            bony.append(Tubes.along(path[: cut + 1], radii[: cut + 1]))
            soft.append(Tubes.along(path[cut:], radii[cut:]))
    return Tubes.joined(bony), Tubes.joined(soft)


def _rib(head: float, side: float) -> tuple[list[tuple[float, float, float]], list[float]]:
    path = []
    for turn in np.linspace(0.22, 2.86, 30):
        z = head - 62.0 * (1 - np.cos(turn)) / 2 - 10 * np.sin(turn)
        width, depth = cavity_radii(float(np.clip(z, -150, 104)))
        x = side * (width + 7.5) * np.sin(turn) ** 0.85
        y = cavity_y(float(np.clip(z, -150, 104))) + (depth + 7.5) * np.sign(np.cos(turn)) * abs(np.cos(turn)) ** 0.85
        path.append((float(x), float(y), float(z)))
    return path, [4.6] * 10 + [5.0] * 20


def _small_bones() -> list[Tubes]:
    """Return breastbone, collar bones, shoulder blades and the vertebrae's processes."""
    found = []
    for x in (-10.0, -6.0, -2.0, 2.0, 6.0, 10.0):
        front = [(x, cavity_y(z) - cavity_radii(z)[1] - 9.0, z) for z in (88.0, 60.0, 20.0, -40.0, -75.0)]
        found.append(Tubes.along(front, [6.5, 6.5, 6, 6, 4]))
    for side in (-1.0, 1.0):
        found.append(Tubes.along([(side * 14, -42, 96), (side * 60, -46, 112), (side * 130, -6, 136)], (7.5, 6, 6.5)))
        for slant in np.linspace(0, 1, 14):
            top = (side * (92 + 40 * slant), 84 - 38 * slant, 128.0)
            low = (side * (98 + 18 * slant), 80 - 22 * slant, 15 + 50 * slant)
            found.append(Tubes.along([top, low], (2.6 + 2 * slant, 2.2)))
    for number in range(-2, 13):
        z = 118.0 - VERTEBRA_MM * number
        y = spine_y(z)
        found.append(Tubes.along([(0, y + 33, z - 4), (0, y + 41, z - 18)], (3.6, 2.8)))
        for side in (-1.0, 1.0):
            found.append(
                Tubes.along([(side * 14, y + 16, z), (side * 11, y + 26, z - 2), (0, y + 34, z - 5)], (4, 4, 4))
            )
            found.append(Tubes.along([(side * 14, y + 22, z), (side * 34, y + 32, z + 2)], (4.5, 3.5)))
    return found
