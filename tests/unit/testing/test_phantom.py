import hashlib
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from node.testing.phantom import (
    LEFT_LUNG,
    NODULE_BASE,
    RIGHT_LUNG,
    NoduleRequest,
    PhantomVolume,
    phantom_volume,
    write_phantom,
)


@pytest.fixture(scope="module")
def chest() -> PhantomVolume:
    return phantom_volume(slices=60, size=256, slice_spacing_mm=5.0)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_the_same_arguments_give_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_phantom(tmp_path / name, slices=3, size=64, seed=7)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_another_seed_gives_another_study_and_other_voxels(tmp_path: Path) -> None:
    first = write_phantom(tmp_path / "a", slices=2, size=64, seed=1)
    second = write_phantom(tmp_path / "b", slices=2, size=64, seed=2)
    assert first.study_uid != second.study_uid
    assert dcmread(first.files[0]).PixelData != dcmread(second.files[0]).PixelData


def test_tissues_have_the_densities_of_a_chest_ct(chest: PhantomVolume) -> None:
    hounsfield = chest.hounsfield
    for lung in (RIGHT_LUNG, LEFT_LUNG):
        assert -880 < np.median(hounsfield[chest.labels == lung]) < -800
    assert np.median(hounsfield[:, 0, 0]) == pytest.approx(-1000, abs=12)
    assert hounsfield.max() > 500
    assert chest.voxels.dtype == np.int16
    assert chest.voxels.min() >= 0


def test_lungs_hold_what_lungs_of_a_grown_person_hold(chest: PhantomVolume) -> None:
    litres = [np.count_nonzero(chest.labels == lung) * chest.geometry.voxel_ml / 1000 for lung in (1, 2)]
    assert all(1.0 < volume < 3.0 for volume in litres), litres
    assert litres[0] > litres[1]


def test_right_is_where_the_patients_right_is(chest: PhantomVolume) -> None:
    center = np.argwhere(chest.labels == RIGHT_LUNG).mean(axis=0)
    assert chest.geometry.to_patient(center[None])[0][0] < 0


def test_nodules_lie_where_the_truth_says_with_the_volume_it_says(chest: PhantomVolume) -> None:
    assert [nodule.diameter_mm for nodule in chest.nodules] == [20, 12, 10, 8, 6, 6, 4]
    for nodule in chest.nodules:
        voxels = np.argwhere(chest.labels == NODULE_BASE + nodule.ordinal)
        center = chest.geometry.to_patient(voxels.mean(axis=0)[None])[0]
        assert np.abs(center - nodule.center_mm).max() < 3.0


def test_volume_and_density_of_nodules_are_as_asked_for() -> None:
    asked = [NoduleRequest(12.0, 40.0), NoduleRequest(8.0, -600.0), NoduleRequest(6.0, 380.0, "calcified")]
    fine = phantom_volume(slices=24, slice_spacing_mm=1.0, nodules=asked)
    for nodule, request in zip(fine.nodules, asked, strict=True):
        inside = fine.labels == NODULE_BASE + nodule.ordinal
        volume = np.count_nonzero(inside) * fine.geometry.voxel_ml
        assert volume == pytest.approx(nodule.volume_ml, rel=0.06)
        slice_, row, column = np.round(fine.geometry.to_index(np.array([nodule.center_mm]))[0]).astype(int)
        core = fine.hounsfield[slice_ - 1 : slice_ + 2, row - 1 : row + 2, column - 1 : column + 2]
        assert core.mean() == pytest.approx(request.density_hu, abs=15)


def test_nodules_keep_apart_and_inside_the_lungs(chest: PhantomVolume) -> None:
    for nodule in chest.nodules:
        for other in chest.nodules[: nodule.ordinal - 1]:
            apart = np.linalg.norm(np.subtract(nodule.center_mm, other.center_mm))
            assert apart > (nodule.diameter_mm + other.diameter_mm) / 2 + 10


def test_no_nodules_can_be_asked_for() -> None:
    empty = phantom_volume(slices=4, size=64, nodules=[])
    assert empty.nodules == ()
    assert empty.labels.max() <= LEFT_LUNG


def test_nodules_without_room_are_left_out_of_the_default_and_refused_when_asked_for() -> None:
    few = phantom_volume(slices=4, size=64)
    assert 0 < len(few.nodules) < 7
    with pytest.raises(ValueError, match="no clear place for 40 mm"):
        phantom_volume(slices=4, size=64, nodules=[NoduleRequest(40.0)])


@pytest.mark.parametrize("wrong", [{"slices": 0}, {"size": 8}, {"slice_spacing_mm": -1.0}])
def test_impossible_plans_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="is wrong"):
        phantom_volume(**wrong)  # type: ignore[arg-type]


def test_noise_is_what_was_asked_for_and_differs_between_slices() -> None:
    noisy = phantom_volume(slices=2, size=128, slice_spacing_mm=0.1, noise_hu=30.0).hounsfield
    air = noisy[:, :20, 40:90]
    assert np.std(air[0][air[0] > -1020]) > 10
    assert not np.array_equal(air[0], air[1])


def test_files_name_position_rescale_and_order(tmp_path: Path) -> None:
    truth = write_phantom(tmp_path, slices=3, size=64)
    images = [dcmread(path) for path in truth.files]
    assert [image.InstanceNumber for image in images] == [3, 2, 1]
    assert [float(image.ImagePositionPatient[2]) for image in images] == [-2.5, 0.0, 2.5]
    assert {(image.RescaleSlope, image.RescaleIntercept, image.PixelRepresentation) for image in images} == {
        (1, -1024, 1)
    }
    assert {image.SeriesInstanceUID for image in images} == {truth.series_uid}
    assert len({image.SOPInstanceUID for image in images}) == 3


def test_files_hold_the_voxels_of_the_volume(tmp_path: Path) -> None:
    truth = write_phantom(tmp_path, slices=3, size=64, seed=5)
    volume = phantom_volume(slices=3, size=64, seed=5)
    for index, path in enumerate(truth.files):
        assert np.array_equal(dcmread(path).pixel_array, volume.voxels[index])
    assert np.array_equal(truth.labels, volume.labels)
