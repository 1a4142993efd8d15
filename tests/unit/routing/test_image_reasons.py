"""What one image says against its series is what the whole series would be told; what only the whole can say is not."""

from typing import Any

import pytest

from node.domain.orientation import reorientation_of
from node.domain.slice_order import stack_of
from node.routing.acceptance import content_reasons, geometry_reasons, image_reasons, kind_reason
from protos.model_manifest import AcceptedInput
from tests.image_headers import axial_series, cosines_about

SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)

# What the model takes, and what the images are, where one image is enough to refuse the series.
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "modality": ({}, {"modality": "MR"}),
    "derived": ({}, {"modality": "SEG"}),
    "image type": ({}, {"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")}),
    "body part": ({"body_parts": ("HEAD",)}, {}),
    "body part missing": ({"body_parts": ("CHEST",)}, {"body_part": ""}),
    "age": ({"patient_age_years": {"most": 18}}, {}),
    "sex": ({"patient_sex": ("M",)}, {}),
    "rows": ({"rows": {"least": 256}}, {}),
    "columns": ({"columns": {"most": 4}}, {}),
    "pixel spacing": ({"pixel_spacing_mm": {"most": 0.75}}, {}),
    "unit": ({"unit": {"value": "[hnsf'U]", "scheme": "UCUM", "meaning": "HU"}}, {"rescale_type": "US"}),
    "oblique": ({"max_oblique_deg": 10.0}, {"orientation": cosines_about((1, 0, 0), 20)}),
    "colour": ({}, {"samples_per_pixel": 3}),
    "inverted": ({}, {"photometric_interpretation": "MONOCHROME1"}),
    "lookup table": ({}, {"has_modality_lut": True}),
    "frames": ({}, {"number_of_frames": 40}),
    "no pixels": ({}, {"pixel_length": 0}),
    "no position": ({}, {"position": None}),
    "no orientation": ({}, {"orientation": None}),
    "no spacing": ({}, {"pixel_spacing": None}),
    "skewed": ({}, {"orientation": (1.0, 0.0, 0.0, 0.5, 0.5, 0.0)}),
    "no frame of reference": ({}, {"frame_of_reference_uid": ""}),
}


@pytest.mark.parametrize(("accepts", "attributes"), REFUSED.values(), ids=REFUSED.keys())
def test_one_image_is_enough(accepts: dict[str, Any], attributes: dict[str, Any]) -> None:
    model = AcceptedInput.model_validate({"modalities": ("CT",), **accepts})
    headers = axial_series(5, **attributes)
    _, reasons = image_reasons(model, headers[2])
    assert reasons
    whole = kind_reason(model, headers) or "; ".join([*content_reasons(model, headers), *_geometry(model, headers)])
    assert whole


def _geometry(model: AcceptedInput, headers: list[Any]) -> list[str]:
    return geometry_reasons(model, headers)[1]


@pytest.mark.parametrize(
    "accepts", [{"slices": {"least": 100}}, {"slices": {"most": 2}}, {"slice_spacing_mm": {"most": 1.0}}]
)
def test_number_and_spacing_of_slices_are_left_to_the_whole(accepts: dict[str, Any]) -> None:
    model = AcceptedInput.model_validate({"modalities": ("CT",), **accepts})
    way, reasons = image_reasons(model, axial_series(5)[0])
    assert reasons == []
    assert way is not None


@pytest.mark.parametrize("axes", ["SPL", "IAR", "PSL", "LPS"])
@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), (0, 1, 0, 1, 0, 0), SAGITTAL], ids=str)
def test_the_way_is_that_of_the_stack(axes: str, orientation: tuple[float, ...]) -> None:
    model = AcceptedInput.model_validate({"modalities": ("CT",), "axes": axes})
    headers = axial_series(5, orientation=orientation)
    way, reasons = image_reasons(model, headers[0])
    assert reasons == []
    assert way is not None
    if orientation != SAGITTAL:  # positions of the series run along the patient's axis
        assert way == reorientation_of(stack_of(headers).geometry, axes)
        assert way.keeps_slices == (axes in ("SPL", "IAR"))
    else:
        assert way.keeps_slices == (axes == "LPS")
