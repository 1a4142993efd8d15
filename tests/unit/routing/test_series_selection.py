"""One verdict with a reason for every series; the best one that fits is taken."""

import random
from dataclasses import replace
from typing import Any

import pytest

from node.domain.instances import ImageHeader, SopReference
from node.domain.study import Verdict
from node.routing.series_selection import judge
from protos.model_manifest import AcceptedInput, CodedConcept, ModelManifest
from tests.image_headers import axial_series, cosines_about

SEGMENTATION_STORAGE = "1.2.840.10008.5.1.4.1.1.66.4"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
HOUNSFIELD = CodedConcept(value="[hnsf'U]", scheme="UCUM", meaning="Hounsfield unit")


def manifest(**accepts: Any) -> ModelManifest:
    return ModelManifest.model_validate(
        {
            "schema_version": 1,
            "identity": {"name": "lung_nodule", "version": "3", "title": "Lung nodule", "manufacturer": "Hilum"},
            "use": {"intended_use": "none", "research_use": "tests"},
            "accepts": AcceptedInput.model_validate({"modalities": ("CT",), **accepts}),
            "inputs": [{"name": "image", "datatype": "INT16", "shape": [-1, -1, -1]}],
            "outputs": [{"name": "probability", "datatype": "UINT8", "shape": [-1, -1, -1]}],
            "findings": [
                {
                    "output": "probability",
                    "threshold": 0.5,
                    "label": "Nodule",
                    "concept": {
                        "category": {"value": "49755003", "scheme": "SCT", "meaning": "Morphologically abnormal"},
                        "type": {"value": "27925004", "scheme": "SCT", "meaning": "Nodule"},
                    },
                }
            ],
            "memory": {"base_mb": 100, "bytes_per_voxel": 4},
            "licence": "Apache-2.0",
        }
    )


def series(uid: str, count: int = 10, step: float = 2.5, **attributes: Any) -> list[ImageHeader]:
    return axial_series(count, step=step, series_uid=uid, **attributes)


def study(*several: list[ImageHeader]) -> dict[str, list[ImageHeader]]:
    return {headers[0].series_uid: headers for headers in several}


def the_reason(headers: list[ImageHeader], **accepts: Any) -> str:
    """The reason why the only series of a study is refused."""
    (verdict,) = judge(manifest(**accepts), study(headers))
    assert not verdict.taken
    return verdict.reason


def the_verdict(headers: list[ImageHeader], **accepts: Any) -> Verdict:
    (verdict,) = judge(manifest(**accepts), study(headers))
    return verdict


def test_the_only_series_that_fits_is_taken_and_the_verdict_names_model_and_size() -> None:
    assert the_verdict(series("2.25.3")) == Verdict(
        "lung_nodule", "3", "2.25.3", taken=True, reason="10 slices, 2.5 mm apart: the only series that fits"
    )


def test_the_series_with_most_slices_wins_and_the_others_are_told() -> None:
    thick, thin = series("2.25.3", 10, 5.0), series("2.25.4", 40, 1.25)
    small, big = judge(manifest(), study(thick, thin))
    assert not small.taken
    assert small.reason == "it fits, but series 2.25.4 has more slices (40 against 10)"
    assert big.taken
    assert big.reason == "40 slices, 1.25 mm apart: of 2 series that fit, it has more slices (40 against 10)"


def test_among_equally_many_slices_the_thinner_wins() -> None:
    thick, thin = judge(manifest(), study(series("2.25.3", 10, 5.0), series("2.25.4", 10, 1.25)))
    assert thin.taken
    assert thick.reason == "it fits, but series 2.25.4 has thinner slices (1.25 mm apart against 5.00 mm)"


def test_among_equal_stacks_original_images_win_over_derived_ones() -> None:
    derived = series("2.25.3", image_type=("DERIVED", "PRIMARY", "AXIAL"))
    first, second = judge(manifest(), study(derived, series("2.25.4")))
    assert second.taken
    assert "original images, not derived" in first.reason


def test_a_tie_is_decided_the_same_way_whatever_the_order() -> None:
    every = [series(f"2.25.{number}") for number in range(10, 16)]
    expected = None
    for seed in range(5):
        random.Random(seed).shuffle(every)
        taken = {verdict.series_uid: verdict for verdict in judge(manifest(), study(*every))}
        assert [uid for uid, verdict in taken.items() if verdict.taken] == ["2.25.10"]
        assert expected in (None, taken)
        expected = taken
    assert expected is not None
    assert "the smaller Series Instance UID decides" in expected["2.25.11"].reason


def test_every_series_gets_one_verdict_in_the_order_given() -> None:
    several = study(series("2.25.9", modality="MR"), series("2.25.4"), series("2.25.7", 1))
    assert [verdict.series_uid for verdict in judge(manifest(), several)] == ["2.25.9", "2.25.4", "2.25.7"]
    assert judge(manifest(), {}) == ()


@pytest.mark.parametrize(
    ("modality", "said"),
    [
        ("SEG", "it is a segmentation (modality SEG): derived objects never start a model"),
        ("SR", "it is a structured report (modality SR): derived objects never start a model"),
        ("KO", "it is a key object selection (modality KO): derived objects never start a model"),
        ("PR", "it is a presentation state (modality PR): derived objects never start a model"),
        ("RTSTRUCT", "it is an RT structure set (modality RTSTRUCT): derived objects never start a model"),
        ("MR", "its modality is MR; the model takes CT"),
        ("", "its modality is not stated; the model takes CT"),
    ],
)
def test_the_modality_is_judged(modality: str, said: str) -> None:
    assert the_reason(series("2.25.3", modality=modality)) == said


def test_derived_objects_never_start_a_model_even_where_the_manifest_names_them() -> None:
    headers = series("2.25.3", modality="SEG", sop=SopReference(SEGMENTATION_STORAGE, "2.25.5"))
    assert "derived objects never start" in the_reason(headers, modalities=("SEG", "CT"))


@pytest.mark.parametrize("sop_class", [SECONDARY_CAPTURE, f"{SECONDARY_CAPTURE}.2", SEGMENTATION_STORAGE])
def test_derived_sop_classes_with_the_modality_of_their_source_are_refused(sop_class: str) -> None:
    reason = the_reason(series("2.25.3", sop=SopReference(sop_class, "2.25.5")))
    assert reason == f"it holds derived images (SOP class {sop_class}): derived objects never start a model"


def test_a_localizer_is_refused_by_its_image_type() -> None:
    headers = series("2.25.3", image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"))
    assert the_reason(headers) == (
        "Image Type (0008,0008) is ORIGINAL\\PRIMARY\\LOCALIZER; the model does not take LOCALIZER"
    )


def test_one_localizer_among_slices_is_counted() -> None:
    headers = series("2.25.3")
    headers[4] = replace(headers[4], image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"))
    assert "in 1 of 10 images" in the_reason(headers)


def test_an_image_type_rule_may_join_values() -> None:
    rule = {"refused_image_types": ("DERIVED\\SECONDARY",)}
    assert "DERIVED\\SECONDARY" in the_reason(series("2.25.3", image_type=("DERIVED", "SECONDARY", "AXIAL")), **rule)
    assert the_verdict(series("2.25.3", image_type=("DERIVED", "PRIMARY", "AXIAL")), **rule).taken


def test_the_body_part_is_judged_whatever_its_case() -> None:
    assert the_verdict(series("2.25.3", body_part="Chest"), body_parts=("CHEST", "LUNG")).taken
    assert the_reason(series("2.25.3", body_part="HEAD"), body_parts=("CHEST", "LUNG")) == (
        "its body part is HEAD; the model takes CHEST or LUNG"
    )


def test_a_missing_body_part_is_refused_unless_a_description_names_it_or_the_manifest_accepts_it() -> None:
    rule: dict[str, Any] = {"body_parts": ("CHEST",), "body_part_terms": ("thorax", "胸部")}
    bare = series("2.25.3", body_part="")
    reason = the_reason(bare, **rule)
    assert reason.startswith("Body Part Examined (0018,0015) is not stated, and no description names thorax or 胸部;")
    assert "Remedy:" in reason
    assert the_verdict(series("2.25.3", body_part="", series_description="CT Thorax nativ"), **rule).taken
    assert the_verdict(series("2.25.3", body_part="", study_description="胸部 CT 平扫"), **rule).taken
    assert the_verdict(series("2.25.3", body_part="", protocol_name="THORAX^HR"), **rule).taken
    accepted = the_verdict(bare, **rule, body_part_missing="accept")
    assert accepted.taken
    assert "not checked: body part is not stated (the model is for CHEST)" in accepted.reason


def test_age_and_sex_are_judged_and_never_repeated() -> None:
    adults = {"patient_age_years": {"least": 18.0}}
    assert the_reason(series("2.25.3", patient_age_years=7.5), **adults) == (
        "the patient's age is outside the model's at least 18 years"
    )
    women = {"patient_sex": ("F",)}
    assert the_reason(series("2.25.3", patient_sex="M"), **women) == (
        "the patient's sex is not one that the model is for (F)"
    )
    unknown = the_verdict(series("2.25.3", patient_age_years=None, patient_sex=""), **adults, **women)
    assert unknown.taken
    assert "not checked: age is not stated" in unknown.reason
    assert "not checked: sex is not stated" in unknown.reason


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"slices": {"least": 12}}, "its number of slices is 10; the model takes at least 12"),
        ({"slices": {"most": 5}}, "its number of slices is 10; the model takes at most 5"),
        ({"slice_spacing_mm": {"most": 2.0}}, "its slice spacing is 2.5 mm; the model takes at most 2 mm"),
        ({"pixel_spacing_mm": {"least": 0.75, "most": 1}}, "rows is 0.7 mm; the model takes 0.75 to 1 mm"),
        ({"rows": {"least": 64}}, "its number of rows is 4; the model takes at least 64"),
        ({"columns": {"least": 64}}, "its number of columns is 6; the model takes at least 64"),
        (
            {"unit": {"value": "1", "scheme": "UCUM", "meaning": "no units"}},
            "in [hnsf'U]; the model takes 1 (no units)",
        ),
    ],
)
def test_sizes_and_units_are_judged(rule: dict[str, Any], said: str) -> None:
    assert said in the_reason(series("2.25.3"), **rule)


def test_the_wanted_unit_is_taken() -> None:
    assert the_verdict(series("2.25.3"), unit=HOUNSFIELD).taken


def test_everything_that_speaks_against_a_series_is_said_at_once() -> None:
    headers = series("2.25.3", body_part="HEAD", patient_age_years=3.0)
    reason = the_reason(headers, body_parts=("CHEST",), patient_age_years={"least": 18}, slices={"least": 20})
    assert reason.count("; the model takes") == 2
    assert "age" in reason


def test_a_multi_frame_image_is_told_that_it_is_one_and_not_counted_as_a_slice() -> None:
    said = the_reason(series("2.25.3", 1, number_of_frames=64), slices={"least": 8})
    assert "64 frames" in said
    assert "number of slices" not in said


def test_slices_that_make_no_volume_are_refused_with_the_positions() -> None:
    headers = series("2.25.3")
    del headers[4]
    assert the_reason(headers) == "slices are missing: 1 between -92.50 mm and -87.50 mm (spacing 2.500 mm)"


def test_an_oblique_series_is_refused_with_its_angle() -> None:
    cosines = cosines_about((0, 0, 1), 30.0)
    assert "30.0 degrees oblique to the axes SPL" in the_reason(series("2.25.3", orientation=cosines))


def test_slices_turned_away_with_different_rescales_are_refused() -> None:
    headers = series("2.25.3")
    headers[2] = replace(headers[2], rescale_slope=2.0)
    assert the_verdict(headers).taken
    assert "differ between slices" in the_reason(headers, axes="PSL")


def test_a_series_without_readable_images_is_told_so() -> None:
    (verdict,) = judge(manifest(), {"2.25.3": []})
    assert not verdict.taken
    assert verdict.reason == "none of its instances could be read as an image"
