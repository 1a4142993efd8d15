"""The model manifest: `model.toml` of a bundle `models/<name>/<version>/`, card and contract in one.

Frozen types with a reader and a writer, and the digest rule: `bundle.sha256` lists the SHA-256 and path of every
other file of the bundle (`model.toml` included); the bundle's digest is the SHA-256 of that list.
Codes are plain value, scheme and meaning, so that the tensor side needs no DICOM library.
"""

import hashlib
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

import tomli_w
from pydantic import Field, ValidationError, model_validator

from protos.bundle_files import (
    DIGEST_LIST_FILE,
    MANIFEST_BYTES_MOST,
    BundleIncomplete,
    ManifestError,
    check_files,
    files_of,
    read_bounded,
    sha256_of,
)
from protos.finding_rules import (
    CodedConcept,
    ComponentFindings,
    Concept,
    FindingRule,
    Frozen,
    LabelClass,
    LabelFindings,
    without_kinds,
)

__all__ = [
    "DIGEST_LIST_FILE",
    "BundleIncomplete",
    "CodedConcept",
    "ComponentFindings",
    "Concept",
    "LabelClass",
    "LabelFindings",
    "ManifestError",
    "ModelBundle",
    "ModelManifest",
]
MANIFEST_FILE = "model.toml"

Datatype = Literal[
    "BOOL", "UINT8", "INT8", "UINT16", "INT16", "UINT32", "INT32", "UINT64", "INT64", "FP16", "FP32", "FP64"
]


class Range(Frozen):
    """A closed interval; `None` leaves a side open."""

    least: float | None = None
    most: float | None = None

    def holds(self, value: float) -> bool:
        """Tell whether `value` lies in the interval."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def __str__(self) -> str:
        """Read as "1 to 3", "at least 1" or "at most 3"."""
        if self.least is not None and self.most is not None:
            return f"{self.least:g} to {self.most:g}"
        if self.least is not None:
            return f"at least {self.least:g}"
        return f"at most {self.most:g}" if self.most is not None else "any"


class Identity(Frozen):
    """Who the algorithm is: it stands in every result (TID 4019, IHE AIR contributing equipment)."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
    version: Annotated[str, Field(pattern=r"^[1-9][0-9]*$")]
    title: Annotated[str, Field(min_length=1, max_length=64)]
    manufacturer: Annotated[str, Field(min_length=1, max_length=64)]
    training_commit: str = ""
    runtime_minimum: Annotated[str, Field(pattern=r"^([0-9]+(\.[0-9]+){0,2})?$")] = ""
    """Oldest TensorFlow that runs the graph, e.g. "2.21"; empty takes any."""


class Use(Frozen):
    """What the model is for, what it is not for, and what is known of its limits."""

    intended_use: str
    research_use: str
    limits: tuple[str, ...] = ()


class AcceptedInput(Frozen):
    """Which series the model takes and how it wants them.

    `axes` names the patient direction in which the slice, row and column index grow, in that order:
    "SPL" = slices toward the head, rows toward the back, columns toward the patient's left.
    """

    modalities: Annotated[tuple[str, ...], Field(min_length=1)]
    body_parts: tuple[str, ...] = ()
    """BodyPartExamined values taken; empty takes any."""
    body_part_terms: tuple[str, ...] = ()
    """Words of Study or Series Description or Protocol Name that state the body part where the attribute is missing."""
    body_part_missing: Literal["accept", "refuse"] = "refuse"
    axes: Annotated[str, Field(pattern=r"^[LRAPSI]{3}$")] = "SPL"
    max_oblique_deg: Annotated[float, Field(ge=0, le=45)] = 20.0
    slices: Range = Range()
    rows: Range = Range()
    columns: Range = Range()
    slice_spacing_mm: Range = Range()
    pixel_spacing_mm: Range = Range()
    refused_image_types: tuple[str, ...] = ("LOCALIZER",)
    """Any of these values in Image Type (0008,0008) disqualifies a series."""
    unit: CodedConcept | None = None
    """UCUM unit of the rescaled values, e.g. [hnsf'U] for CT; None takes any."""
    patient_age_years: Range = Range()
    patient_sex: tuple[Literal["F", "M", "O"], ...] = ()

    @model_validator(mode="after")
    def _axes_span_space(self) -> Self:
        if sorted("LR" if a in "LR" else "AP" if a in "AP" else "SI" for a in self.axes) != ["AP", "LR", "SI"]:
            raise ValueError(f"axes {self.axes!r} must name one of L/R, one of A/P and one of S/I, e.g. 'SPL'")
        return self


class Tensor(Frozen):
    """One input or output of the signature; -1 stands for a dimension of any size."""

    name: Annotated[str, Field(min_length=1)]
    datatype: Datatype
    shape: tuple[int, ...]


class ValueRules(Frozen):
    """How stored values reach the graph."""

    padding: Literal["send", "ignore"] = "ignore"
    """"send": Pixel Padding Value travels as input `padding` where the series has one."""
    monochrome1: Literal["refuse"] = "refuse"


class Memory(Frozen):
    """What one request takes at the service beyond its input and output."""

    base_mb: float
    bytes_per_voxel: float


class Figure(Frozen):
    """One measured figure with its data set and, where known, a 95 % interval."""

    name: str
    value: float
    dataset: str
    n: int
    low: float | None = None
    high: float | None = None
    note: str = ""


class DatasetUse(Frozen):
    """A data set that made the model: name, licence, credit, split rule and digest of the split."""

    name: str
    licence: str
    credit: str
    split: str
    digest: str = ""


class Origin(Frozen):
    """Where a network comes from that was not trained here, and the very bytes that were imported."""

    file: str
    """Name of the file or folder."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of the file; of a folder, of the lines "sha256  path" of its files."""
    kind: Literal["keras", "h5", "saved_model"]
    source: str = ""
    """Address, paper or product that it was taken from."""
    credit: str


class Batching(Frozen):
    """How tiles of several requests are mixed in the signature `network`."""

    max_batch: Annotated[int, Field(ge=1, le=1024)] = 8
    """Tiles in one run at most; also the batch that the run is padded to where the graph wants one fixed size."""
    max_delay_ms: Annotated[float, Field(ge=0, le=1000)] = 3.0
    """Longest wait of a tile for others."""
    preferred: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Batch sizes that run at once when reached."""
    max_queue: Annotated[int, Field(ge=1)] = 4096
    """Tiles that wait at most; more are answered RESOURCE_EXHAUSTED at once."""


class Slabs(Frozen):
    """How a large volume runs in slabs of slices with constant memory, by the signature `slab`.

    `slab` takes the manifest's inputs, those of `along` cut to a slab with its halo, and the state; it returns the
    outputs for all slices it got and the state for the next slab. Where the graph has a signature `survey` (same
    inputs, state out), it runs over all slabs first. State tensors are inputs and outputs named `state/...` and begin
    as zeros.
    """

    slices: Annotated[int, Field(ge=1)] = 32
    """Slices of one slab, without halo."""
    halo: Annotated[int, Field(ge=0)] = 0
    """Neighbouring slices on each side that the slab must see; fewer at the ends of the volume."""
    along: tuple[str, ...] = ("image", "slope", "intercept")
    """Inputs whose first dimension is the slice."""
    state: "tuple[Tensor, ...]" = ()
    """State tensors; no dimension of any size."""


class Golden(Frozen):
    """A synthetic input and its output, kept in the bundle, within a tolerance per device class."""

    file: str
    tolerance: dict[str, float]


class ModelManifest(Frozen):
    """The whole of `model.toml`."""

    schema_version: Literal[1]
    identity: Identity
    use: Use
    accepts: AcceptedInput
    inputs: Annotated[tuple[Tensor, ...], Field(min_length=1)]
    outputs: Annotated[tuple[Tensor, ...], Field(min_length=1)]
    findings: tuple[FindingRule, ...] = ()
    """Empty where only the service answers for the model; the node then refuses it."""
    memory: Memory
    licence: str
    value_rules: ValueRules = ValueRules()
    calibration: str = "none"
    operating_point: str = ""
    figures: tuple[Figure, ...] = ()
    datasets: tuple[DatasetUse, ...] = ()
    origin: Origin | None = None
    """None where the network was trained with this project."""
    golden: Golden | None = None
    batching: Batching | None = None
    slabs: Slabs | None = None

    @model_validator(mode="after")
    def _padding_has_an_input(self) -> Self:
        declared = any(tensor.name == "padding" for tensor in self.inputs)
        if declared != (self.value_rules.padding == "send"):
            raise ValueError(
                f"value_rules.padding is {self.value_rules.padding!r} and the inputs "
                f"{'hold' if declared else 'lack'} 'padding': either 'send' with that input, or 'ignore' without it"
            )
        return self

    @model_validator(mode="after")
    def _findings_name_outputs(self) -> Self:
        known = {tensor.name: tensor.datatype for tensor in self.outputs}
        for finding in self.findings:
            for name in finding.outputs:
                if name not in known:
                    raise ValueError(f"findings name the output {name!r}; the model has {sorted(known)}")
            if isinstance(finding, LabelFindings) and known[finding.output] not in ("UINT8", "UINT16"):
                raise ValueError(f"a label map must be UINT8 or UINT16; {finding.output!r} is {known[finding.output]}")
        return self


@dataclass(frozen=True, slots=True)
class ModelBundle:
    """A bundle directory whose files were checked against `bundle.sha256`."""

    directory: Path
    manifest: ModelManifest
    digest: str
    """Hex SHA-256 of bundle.sha256."""


def read_manifest(path: Path) -> ModelManifest:
    """Read a `model.toml`; raise ManifestError naming the file, the field, the value and what would be right."""
    try:
        return ModelManifest.model_validate(tomllib.loads(read_bounded(path, MANIFEST_BYTES_MOST).decode()))
    except FileNotFoundError as error:
        raise ManifestError(f"{path}: no such file") from error
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ManifestError(f"{path}: cannot be read as TOML: {error}") from error
    except ValidationError as error:
        raise ManifestError(f"{path}: {describe_validation(error)}") from error


def describe_validation(error: ValidationError) -> str:
    """Say each violation as "key: what is wrong (got value)"."""
    return "; ".join(
        f"{'.'.join(without_kinds(item['loc'])) or 'document'}: {item['msg']} (got {item['input']!r:.120})"
        for item in error.errors()
    )


def write_manifest(manifest: ModelManifest, path: Path) -> None:
    """Write `manifest` as TOML; reading it back gives an equal manifest."""
    path.write_text(tomli_w.dumps(manifest.model_dump(mode="json", exclude_none=True)), encoding="utf-8")


def write_digest_list(directory: Path) -> str:
    """Write `bundle.sha256` for the files of `directory` and return the bundle's digest."""
    text = "".join(f"{sha256_of(directory / name)}  {name}\n" for name in files_of(directory))
    (directory / DIGEST_LIST_FILE).write_text(text, encoding="utf-8")
    return hashlib.sha256(text.encode()).hexdigest()


def open_bundle(directory: Path) -> ModelBundle:
    """Check every file of a bundle against its list and read its manifest.

    Raises:
        BundleIncomplete: a file is missing, changed or not listed.
        ManifestError: links or paths outside the folder, a manifest that is wrong, or one whose identity is not the
            directory's `<name>/<version>`.
    """
    listed = check_files(directory)
    manifest = read_manifest(directory / MANIFEST_FILE)
    if (manifest.identity.name, manifest.identity.version) != (directory.parent.name, directory.name):
        raise ManifestError(
            f"{directory / MANIFEST_FILE}: identity {manifest.identity.name}/{manifest.identity.version} "
            f"must equal the folder names {directory.parent.name}/{directory.name}"
        )
    if manifest.golden is not None and manifest.golden.file not in listed:
        raise ManifestError(
            f"{directory / MANIFEST_FILE}: golden.file: expected a file of the bundle, "
            f"got {manifest.golden.file!r:.120}"
        )
    return ModelBundle(directory, manifest, sha256_of(directory / DIGEST_LIST_FILE))


def bundle_directories(models_directory: Path) -> Iterator[Path]:
    """Yield `<name>/<version>` folders that hold a manifest, in order of name and number."""
    found = [path.parent for path in models_directory.glob(f"*/*/{MANIFEST_FILE}")]
    numbered = [path for path in found if path.name.isascii() and path.name.isdecimal()]
    yield from sorted(numbered, key=lambda path: (path.parent.name, int(path.name)))
