"""What a manifest says of a series, rule by rule: each rule answers "" or a reason that a person can act on."""

from collections.abc import Callable, Sequence
from typing import Final

from node.domain.derived import DERIVED_MODALITIES, is_derived_class
from node.domain.geometry import Geometry
from node.domain.instances import ImageHeader
from node.domain.orientation import Reorientation, reorientation_of, require_turnable
from node.domain.slice_order import Stack, plane_of, stack_of
from node.domain.units import unit_of
from node.errors import Refusal
from protos.model_manifest import AcceptedInput, Range

Headers = Sequence[ImageHeader]


def kind_reason(accepts: AcceptedInput, headers: Headers) -> str:
    """Say why the series is no series of images that the model could take, whatever their content."""
    for header in headers:
        if header.modality in DERIVED_MODALITIES:
            kind = DERIVED_MODALITIES[header.modality]
            return f"it is {kind} (modality {header.modality}): derived objects never start a model"
        if header.modality not in accepts.modalities:
            return f"its modality is {header.modality or 'not stated'}; the model takes {_either(accepts.modalities)}"
        if is_derived_class(header.sop.sop_class_uid):
            return (
                f"it holds derived images (SOP class {header.sop.sop_class_uid}): derived objects never start a model"
            )
    return ""


def content_reasons(accepts: AcceptedInput, headers: Headers) -> list[str]:
    """Say everything in the description of the images that the model does not take."""
    answers = (rule(accepts, headers) for rule in (*_DESCRIPTION_RULES, _slices))
    return [answer for answer in answers if answer]


def geometry_reasons(accepts: AcceptedInput, headers: Headers) -> tuple[Stack | None, list[str]]:
    """Return the slices in order, and everything in their geometry and values that the model does not take.

    Where the images make no volume at all there is no stack, and the one reason is why.
    """
    try:
        stack = stack_of(headers)
        require_turnable(
            reorientation_of(stack.geometry, accepts.axes),
            accepts.max_oblique_deg,
            uniform_rescale=len({(header.rescale_slope, header.rescale_intercept) for header in headers}) == 1,
        )
    except Refusal as refusal:
        return None, [str(refusal)]
    slice_mm = stack.geometry.spacing[0]
    reasons = [_outside("slice spacing", slice_mm, accepts.slice_spacing_mm, " mm")]
    reasons += _grid_reasons(accepts, stack.geometry, stack.headers)
    return stack, [reason for reason in reasons if reason]


def image_reasons(accepts: AcceptedInput, header: ImageHeader) -> tuple[Reorientation | None, list[str]]:
    """Judge one image of a series that still arrives, by every rule that one image can break.

    Returns the way to the model's axes that a series of such images will take (None where its planes do not say it),
    and everything that speaks against the series whatever else comes. Silent: the number of slices and their spacing.
    """
    wrong_kind = kind_reason(accepts, [header])
    if wrong_kind:
        return None, [wrong_kind]
    reasons = [rule(accepts, [header]) for rule in _DESCRIPTION_RULES]
    try:
        plane = plane_of(header)
        way = reorientation_of(plane, accepts.axes)
        require_turnable(way, accepts.max_oblique_deg, uniform_rescale=True)
    except Refusal as refusal:
        return None, [*(reason for reason in reasons if reason), str(refusal)]
    reasons += _grid_reasons(accepts, plane, [header])
    return way, [reason for reason in reasons if reason]


def unchecked(accepts: AcceptedInput, headers: Headers) -> list[str]:
    """Name the rules of the manifest that could not be checked, because the images state nothing."""
    first = headers[0]
    notes = []
    if first.patient_age_years is None and accepts.patient_age_years != Range():
        notes.append(f"age is not stated (the model is for {accepts.patient_age_years} years)")
    if not first.patient_sex and accepts.patient_sex:
        notes.append(f"sex is not stated (the model is for {_either(accepts.patient_sex)})")
    if accepts.body_parts and accepts.body_part_missing == "accept" and not _body_parts(headers):
        notes.append(f"body part is not stated (the model is for {_either(accepts.body_parts)})")
    return notes


def _image_type(accepts: AcceptedInput, headers: Headers) -> str:
    # An entry may join values with a backslash, as Image Type does: all of them must be there.
    for entry in accepts.refused_image_types:
        wanted = {part.strip().upper() for part in entry.split("\\")}
        hits = [header for header in headers if wanted <= {value.upper() for value in header.image_type}]
        if hits:
            stated = "\\".join(hits[0].image_type)
            share = f" in {len(hits)} of {len(headers)} images" if len(hits) < len(headers) else ""
            return f"Image Type (0008,0008) is {stated}{share}; the model does not take {entry}"
    return ""


def _body_part(accepts: AcceptedInput, headers: Headers) -> str:
    if not accepts.body_parts:
        return ""
    taken = {part.upper() for part in accepts.body_parts}
    stated = _body_parts(headers)
    if stated:
        other = sorted(stated - taken)
        return f"its body part is {_either(other)}; the model takes {_either(accepts.body_parts)}" if other else ""
    if _term_hit(accepts.body_part_terms, headers[0]) or accepts.body_part_missing == "accept":
        return ""
    searched = f", and no description names {_either(accepts.body_part_terms)}" if accepts.body_part_terms else ""
    return (
        f"Body Part Examined (0018,0015) is not stated{searched}; the model takes {_either(accepts.body_parts)}. "
        f"Remedy: have the modality fill it in, or name words of its protocols in accepts.body_part_terms"
    )


def _body_parts(headers: Headers) -> set[str]:
    return {header.body_part.upper() for header in headers} - {""}


def _term_hit(terms: Sequence[str], header: ImageHeader) -> bool:
    described = f"{header.study_description}\n{header.series_description}\n{header.protocol_name}".casefold()
    return any(term.casefold() in described for term in terms)


def _age(accepts: AcceptedInput, headers: Headers) -> str:
    # Many devices and all pseudonymised studies leave it out: that is said in the verdict and refuses nothing.
    age = headers[0].patient_age_years
    if age is None or accepts.patient_age_years.holds(age):
        return ""
    return f"the patient's age is outside the model's {accepts.patient_age_years} years"


def _sex(accepts: AcceptedInput, headers: Headers) -> str:
    sex = headers[0].patient_sex
    if not accepts.patient_sex or not sex or sex in accepts.patient_sex:
        return ""
    return f"the patient's sex is not one that the model is for ({_either(accepts.patient_sex)})"


def _slices(accepts: AcceptedInput, headers: Headers) -> str:
    most = max(header.number_of_frames for header in headers)
    if most > 1:
        return f"it holds images of up to {most} frames; the model takes one single-frame image per slice"
    return _outside("number of slices", len(headers), accepts.slices)


def _grid_reasons(accepts: AcceptedInput, geometry: Geometry, headers: Headers) -> list[str]:
    _, row_mm, column_mm = geometry.spacing
    _, rows, columns = geometry.shape
    return [
        _outside("pixel spacing between rows", row_mm, accepts.pixel_spacing_mm, " mm"),
        _outside("pixel spacing between columns", column_mm, accepts.pixel_spacing_mm, " mm"),
        _outside("number of rows", rows, accepts.rows),
        _outside("number of columns", columns, accepts.columns),
        _unit(accepts, headers),
    ]


def _unit(accepts: AcceptedInput, headers: Headers) -> str:
    unit = unit_of(headers[0])
    if accepts.unit is None or accepts.unit.value == unit:
        return ""
    return f"its values are in {unit}; the model takes {accepts.unit.value} ({accepts.unit.meaning})"


_DESCRIPTION_RULES: Final[tuple[Callable[[AcceptedInput, Headers], str], ...]] = (
    _image_type,
    _body_part,
    _age,
    _sex,
)


def _outside(name: str, value: float, allowed: Range, unit: str = "") -> str:
    if allowed.holds(value):
        return ""
    return f"its {name} is {value:g}{unit}; the model takes {allowed}{unit}"


def _either(values: Sequence[str]) -> str:
    return " or ".join(values)
