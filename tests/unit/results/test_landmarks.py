"""A landmark painted at known patient coordinates is in the same place after volume, SEG and reading back."""

import tempfile
from pathlib import Path

import highdicom
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from scipy.spatial.transform import Rotation

from node.domain.orientation import reorient
from node.results import concepts, sr_tree
from node.results.evidence_writer import write_objects
from node.results.linter import lint
from node.results.source_series import source_series
from tests.evidence_cases import probability_of, read_series, request_for
from tests.series_factory import SeriesPlan, patient_point, write_series

SHAPE = (6, 13, 10)
AXES = {
    "axial": (1, 0, 0, 0, 1, 0),
    "flipped top to bottom": (1, 0, 0, 0, -1, 0),
    "feet first": (-1, 0, 0, 0, 1, 0),
    "prone": (-1, 0, 0, 0, -1, 0),
    "coronal": (1, 0, 0, 0, 0, -1),
    "sagittal": (0, 1, 0, 0, 0, -1),
}


@st.composite
def plans(draw: st.DrawFn) -> SeriesPlan:
    axes = np.array(draw(st.sampled_from(list(AXES.values()))), float)
    angles = draw(st.tuples(*[st.floats(-12, 12)] * 3))
    turn = Rotation.from_euler("xyz", angles, degrees=True)
    orientation = np.concatenate([turn.apply(axes[:3]), turn.apply(axes[3:])])
    return SeriesPlan(
        voxels=np.full(SHAPE, 30, np.int16),
        spacing=draw(st.tuples(st.floats(0.8, 5), st.floats(0.4, 1.2), st.floats(0.4, 1.2))),
        origin=draw(st.tuples(*[st.floats(-200, 200)] * 3)),
        orientation=tuple(float(value) for value in orientation),
        modality=draw(st.sampled_from(["CT", "MR"])),
        shuffle=draw(st.booleans()),
        seed=draw(st.integers(1, 99)),
    )


@settings(deadline=None, max_examples=15)
@given(plans(), st.tuples(*[st.integers(1, size - 3) for size in SHAPE]))
def test_a_landmark_stays_where_it_is(plan: SeriesPlan, index: tuple[int, int, int]) -> None:
    landmark = patient_point(plan, index)
    with tempfile.TemporaryDirectory() as directory:
        volume, headers = read_series(write_series(plan, Path(directory) / "series"))
        at = np.rint(volume.geometry.to_index(landmark[np.newaxis])[0]).astype(int)
        painted = np.zeros(volume.geometry.shape, bool)
        painted[tuple(slice(start, start + 2) for start in at)] = True

        turned, reorientation = reorient(volume, "SPL", 45.0)
        there = np.rint(turned.geometry.to_index(landmark[np.newaxis])[0]).astype(int)
        probability = np.zeros(turned.geometry.shape, np.uint8)
        probability[tuple(there)] = 255
        back = reorientation.back(probability)
        assert np.argwhere(back).tolist() == [at.tolist()]

        request = request_for(volume, headers, {"probability": probability_of(painted)})
        source = source_series(volume, headers)
        write_objects(request, source, Path(directory))
        assert lint([Path(directory) / "seg-1.dcm", Path(directory) / "sr-1.dcm"], source) == ()
        assert_seg_has(Path(directory) / "seg-1.dcm", landmark)
        assert_sr_has(Path(directory) / "sr-1.dcm", Path(directory) / "series", landmark)


def assert_seg_has(path: Path, landmark: np.ndarray) -> None:
    """The SEG, placed by its own geometry alone, holds the landmark's voxel."""
    seg = highdicom.seg.segread(path)
    grid = seg.get_volume(combine_segments=True)
    place = grid.map_reference_to_indices(landmark[np.newaxis])[0]
    assert np.abs(place - np.rint(place)).max() < 1e-2
    assert grid.array[tuple(np.rint(place).astype(int))] == 1
    assert grid.array.sum() == 8


def assert_sr_has(path: Path, series: Path, landmark: np.ndarray) -> None:
    """A region of the SR, placed by the image that it names, encloses the landmark."""
    images = {
        image.SOPInstanceUID: image for image in (dcmread(file, stop_before_pixels=True) for file in series.iterdir())
    }
    enclosing = 0
    for region in sr_tree.anywhere(dcmread(path), concepts.IMAGE_REGION):
        (uid,) = sr_tree.references(sr_tree.children(region)[0])
        image = images[uid]
        along_columns, along_rows = np.array(image.ImageOrientationPatient, float).reshape(2, 3)
        offset = landmark - np.array(image.ImagePositionPatient, float)
        # The centre of the first pixel is at 0.5, 0.5 in image coordinates.
        column = offset @ along_columns / image.PixelSpacing[1] + 0.5
        row = offset @ along_rows / image.PixelSpacing[0] + 0.5
        on_plane = abs(offset @ np.cross(along_columns, along_rows)) < 0.01
        points = np.array(region.GraphicData).reshape(-1, 2)
        inside = (points.min(axis=0) < (column, row)).all() and (points.max(axis=0) > (column, row)).all()
        enclosing += bool(on_plane and inside)
    assert enclosing == 1
