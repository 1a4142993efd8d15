"""The manifest's rules by which voxel maps become findings, with the codes they are written under."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

MeasurementKind = Literal["volume", "longest_axial_diameter", "mean", "probability"]


class Frozen(BaseModel):
    """Base of the manifest's parts: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class CodedConcept(Frozen):
    """A code of PS3.16: value, coding scheme designator and meaning, e.g. 27925004, SCT, Nodule."""

    value: Annotated[str, Field(min_length=1, max_length=16)]
    scheme: Annotated[str, Field(min_length=1, max_length=16)]
    meaning: Annotated[str, Field(min_length=1, max_length=64)]


class Concept(Frozen):
    """What a segment or finding is, coded as PS3.3 C.8.20.4.2 and TID 1410/1411 want it."""

    category: CodedConcept
    type: CodedConcept
    site: CodedConcept | None = None
    color_rgb: tuple[int, int, int] = (255, 0, 0)


class ComponentFindings(Frozen):
    """Findings by 3-D connected components of a thresholded voxel map.

    `output` is a voxel map on the input grid; voxel * scale is compared with `threshold`. With `within`, components
    are formed only where that output is non-zero. `instances` gives one segment per component, else one for all.
    """

    kind: Literal["components"] = "components"
    output: str
    scale: float = 1 / 255
    threshold: Annotated[float, Field(gt=0, lt=1)]
    within: str | None = None
    connectivity: Literal[6, 18, 26] = 26
    min_voxels: Annotated[int, Field(ge=1)] = 1
    min_volume_ml: Annotated[float, Field(ge=0)] = 0.0
    min_diameter_mm: Annotated[float, Field(ge=0)] = 0.0
    min_probability: Annotated[float, Field(ge=0, le=1)] = 0.0
    max_findings: Annotated[int, Field(ge=1, le=1000)] = 50
    instances: bool = True
    label: Annotated[str, Field(min_length=1, max_length=48)]
    concept: Concept
    measurements: tuple[MeasurementKind, ...] = ("volume", "longest_axial_diameter", "mean", "probability")

    @property
    def outputs(self) -> tuple[str, ...]:
        """Name the outputs that the rule reads."""
        return (self.output, self.within) if self.within else (self.output,)

    @property
    def kinds(self) -> tuple[CodedConcept, ...]:
        """Give the types of finding that the rule can make."""
        return (self.concept.type,)


class LabelClass(Frozen):
    """One class of a label map: its index in the map and what it is."""

    index: Annotated[int, Field(ge=1, le=65535)]
    label: Annotated[str, Field(min_length=1, max_length=48)]
    concept: Concept


class LabelFindings(Frozen):
    """One finding and one segment for each class of a label map that is there.

    `output` is a map of UINT8 or UINT16 on the input grid: 0 is background, every other value is the index of a
    class. A class below `min_volume_ml` is left out.
    """

    kind: Literal["labels"]
    output: str
    classes: Annotated[tuple[LabelClass, ...], Field(min_length=1)]
    min_volume_ml: Annotated[float, Field(ge=0)] = 0.0
    measurements: tuple[Literal["volume"], ...] = ("volume",)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Name the output that the rule reads."""
        return (self.output,)

    @property
    def kinds(self) -> tuple[CodedConcept, ...]:
        """Give the types of finding that the rule can make."""
        return tuple(item.concept.type for item in self.classes)

    @model_validator(mode="after")
    def _every_class_is_named(self) -> Self:
        indexes = [item.index for item in self.classes]
        if indexes != list(range(1, len(indexes) + 1)):
            raise ValueError(f"classes have the indexes {indexes}; name every class from 1 on, once, in rising order")
        return self


KINDS = ("components", "labels")


def _kind_of(rule: Any) -> str:
    kind = rule.get("kind", KINDS[0]) if isinstance(rule, dict) else rule.kind
    return str(kind)


FindingRule = Annotated[
    Annotated[ComponentFindings, Tag("components")] | Annotated[LabelFindings, Tag("labels")],
    Discriminator(_kind_of),
]


def without_kinds(location: Sequence[str | int]) -> list[str]:
    """Give the place of a wrong value without the tag that tells the rules apart: findings.0.threshold."""
    return [
        str(part) for at, part in enumerate(location) if not (part in KINDS and at == 2 and location[0] == "findings")
    ]
