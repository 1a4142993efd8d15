"""The recipe of an import: a small TOML that says what a foreign network is, wants and answers.

`example.toml` beside this module is a commented one.
"""

import json
import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from protos.bundle_files import ManifestError, read_bounded
from protos.finding_rules import CodedConcept, Frozen
from protos.model_manifest import AcceptedInput, Use
from training.importing.errors import RecipeRefused

EXAMPLE = Path(__file__).parent / "example.toml"
REMEDY = "Remedy: `hilum models recipe` prints a recipe with every key explained"
RECIPE_BYTES_MOST = 1 << 20
ANATOMICAL_STRUCTURE = CodedConcept(value="123037004", scheme="SCT", meaning="Anatomical Structure")

Positive = Annotated[float, Field(gt=0)]
Voxels = Annotated[int, Field(ge=1, le=4096)]
Quantile = Annotated[float, Field(ge=0, le=1)]
Counted = Literal["all", "image", "nonzero"]


class RecipeIdentity(Frozen):
    """Who the algorithm is; `protos.model_manifest.Identity` says more."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
    version: Annotated[str, Field(pattern=r"^[1-9][0-9]*$")] = "1"
    title: Annotated[str, Field(min_length=1, max_length=64)]
    manufacturer: Annotated[str, Field(min_length=1, max_length=64)]


class RecipeOrigin(Frozen):
    """Where the network comes from and under which terms."""

    licence: Annotated[str, Field(min_length=1)]
    credit: Annotated[str, Field(min_length=1)]
    source: str = ""
    """Address, paper or product that it was taken from."""


class Grid(Frozen):
    """The grid that the network sees (conform): spacing, then size about the centre."""

    spacing_mm: tuple[Positive, ...] | None = None
    """[slice, row, column], or [row, column] for a network of two dimensions; None keeps the series' own."""
    size: tuple[Voxels, ...] | None = None
    """The resampled image is padded and cropped to it about its centre."""
    multiple_of: tuple[Voxels, ...] | None = None
    """Instead of `size`: padded to the next multiple."""
    fill: float = 0.0
    """Rescaled value of what is padded."""
    floor: float | None = None
    """Rescaled values below it become it, e.g. -1024 for the padding of a CT."""


class NoScaling(Frozen):
    """Rescaled values as they are."""

    kind: Literal["none"]


class FixedScaling(Frozen):
    """(value - subtract) / divide."""

    kind: Literal["scale"]
    subtract: float = 0.0
    divide: float = 1.0

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.divide == 0:
            raise ValueError("divide must not be 0")
        return self


class WindowScaling(Frozen):
    """A window of PS3.3 C.11.2.1.2 to 0..1."""

    kind: Literal["window"]
    center: float
    width: Annotated[float, Field(ge=1)]
    function: Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"] = "LINEAR_EXACT"


class Statistics(Frozen):
    """What counts for statistics of the image; voxels that do not count become 0."""

    counted: Counted = "image"
    """"all" counts padding too, "image" only the image, "nonzero" only the image's values other than 0."""


class ZScore(Statistics):
    """To mean 0 and standard deviation 1."""

    kind: Literal["zscore"]


class RangeScaling(Statistics):
    """Least value to 0, greatest to 1."""

    kind: Literal["range"]


class QuantileScaling(Statistics):
    """Two quantiles to 0 and 1; values beyond go on, or are cut off with `clip`."""

    kind: Literal["quantiles"]
    lower: Quantile = 0.02
    upper: Quantile = 0.98
    clip: bool = False

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if not self.lower < self.upper:
            raise ValueError(f"lower {self.lower:g} must be less than upper {self.upper:g}")
        return self


Normalisation = Annotated[
    NoScaling | FixedScaling | WindowScaling | ZScore | RangeScaling | QuantileScaling, Field(discriminator="kind")
]


class NetworkTerms(Frozen):
    """How the network is fed and what it answers."""

    dimensions: Literal[2, 3] = 3
    """2: slices one by one."""
    channels: Literal["last", "first", "none"] = "last"
    """Where the axis of the one channel stands; the answer's classes stand in the same place."""
    activation: Literal["softmax", "sigmoid", "none"] = "softmax"
    """What makes probabilities of the answer; "none" where the network does so itself. "sigmoid": one class."""
    run: Literal["whole", "windows", "blocks"] = "whole"
    """How a volume is cut: not at all, in blended windows, or in blocks that give exactly the answer of the whole."""
    window: tuple[Voxels, ...] | None = None
    """Size of a window, which is the size that the network was trained with."""
    overlap: Annotated[float, Field(ge=0, le=0.9)] = 0.5
    """Of neighbouring windows, as a part of their size."""
    block: tuple[Voxels, ...] | None = None
    """Size of a block at most, its halo included; what memory allows."""
    halo: Annotated[int, Field(ge=0, le=512)] | None = None
    """Voxels around that an answer depends on; None reads it off the layers of a Keras file."""
    slices: Annotated[int, Field(ge=1, le=64)] = 4
    """Slices that a network of two dimensions gets at once."""
    signature: Annotated[str, Field(min_length=1, max_length=64)] = "serving_default"
    """Of a SavedModel."""

    @model_validator(mode="after")
    def _way_has_its_size(self) -> Self:
        for way, key, size in (("windows", "window", self.window), ("blocks", "block", self.block)):
            if (self.run == way) != (size is not None):
                raise ValueError(f"run = {self.run!r} and {key} = {size}: {key} goes with run = {way!r}, and only so")
        if self.run == "blocks" and self.dimensions == 2:
            raise ValueError("run = 'blocks' is for networks of three dimensions; slices run one by one anyway")
        if self.halo is not None and self.block is not None and min(self.block) <= 2 * self.halo:
            raise ValueError(f"block {list(self.block)} must be larger than two halos of {self.halo}")
        return self


class RecipeLabel(Frozen):
    """One class of the answer: its index, and what it is under which codes."""

    index: Annotated[int, Field(ge=1, le=255)]
    label: Annotated[str, Field(min_length=1, max_length=48)]
    type: CodedConcept
    category: CodedConcept = ANATOMICAL_STRUCTURE
    site: CodedConcept | None = None
    color_rgb: Annotated[tuple[Annotated[int, Field(ge=0, le=255)], ...], Field(min_length=3, max_length=3)] | None = (
        None
    )
    """None takes one of a fixed row of colours."""


class Recipe(Frozen):
    """The whole of a recipe."""

    schema_version: Literal[1]
    identity: RecipeIdentity
    use: Use
    origin: RecipeOrigin
    accepts: AcceptedInput
    grid: Grid = Grid()
    normalisation: Normalisation
    network: NetworkTerms = NetworkTerms()
    labels: Annotated[tuple[RecipeLabel, ...], Field(min_length=1, max_length=255)]
    min_volume_ml: Annotated[float, Field(ge=0)] = 0.0
    """Segments below it are left out."""

    @property
    def classes(self) -> int:
        """Channels that the network must answer; the background is class 0, unless `sigmoid` leaves it out."""
        return 1 if self.network.activation == "sigmoid" else len(self.labels) + 1

    @model_validator(mode="after")
    def _sizes_have_the_networks_axes(self) -> Self:
        axes = self.network.dimensions
        for key, sizes in (
            ("grid.spacing_mm", self.grid.spacing_mm),
            ("grid.size", self.grid.size),
            ("grid.multiple_of", self.grid.multiple_of),
            ("network.window", self.network.window),
            ("network.block", self.network.block),
        ):
            if sizes is not None and len(sizes) != axes:
                raise ValueError(f"{key} {list(sizes)} must have {axes} numbers, as network.dimensions = {axes} says")
        if self.grid.size is not None and self.grid.multiple_of is not None:
            raise ValueError("grid.size and grid.multiple_of exclude each other")
        return self

    @model_validator(mode="after")
    def _labels_are_all_there(self) -> Self:
        indexes = [item.index for item in self.labels]
        if indexes != list(range(1, len(indexes) + 1)):
            raise ValueError(f"labels have the indexes {indexes}; name every class from 1 on, once, in rising order")
        if self.network.activation == "sigmoid" and len(indexes) != 1:
            raise ValueError(f"activation = 'sigmoid' goes with one label, got {len(indexes)}")
        return self

    @model_validator(mode="after")
    def _memory_can_be_stated(self) -> Self:
        bounds = (self.accepts.slice_spacing_mm.most, self.accepts.pixel_spacing_mm.most)
        if self.grid.spacing_mm is not None and None in bounds:
            raise ValueError(
                "grid.spacing_mm needs accepts.slice_spacing_mm.most and accepts.pixel_spacing_mm.most: "
                "without them no bound can be stated of the memory that a coarse series grows into"
            )
        return self


def read_recipe(path: Path) -> Recipe:
    """Read a recipe; RecipeRefused names the file, the field, the value and what would be right."""
    try:
        return Recipe.model_validate(tomllib.loads(read_bounded(path, RECIPE_BYTES_MOST).decode()))
    except OSError as error:
        raise RecipeRefused(f"{path}: cannot be read: {error.strerror}. Remedy: name the TOML file") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeRefused(f"{path}: cannot be read as TOML: {error}. {REMEDY}") from error
    except ManifestError as error:
        raise RecipeRefused(f"{error}. {REMEDY}") from error
    except ValidationError as error:
        raise RecipeRefused(f"{path}: {_described(error)}. {REMEDY}") from error


def recipe_of_json(text: str) -> Recipe:
    """Take a recipe as `Recipe.model_dump_json` gave it."""
    return Recipe.model_validate(json.loads(text))


def _described(error: ValidationError) -> str:
    return "; ".join(f"{_key(item['loc'])}: {item['msg']} (got {item['input']!r:.120})" for item in error.errors())


def _key(place: tuple[int | str, ...]) -> str:
    """Join the keys that lead to a value, without the kind that tells the normalisations apart."""
    kept = [str(part) for at, part in enumerate(place) if (place[0], at) != ("normalisation", 1)]
    return ".".join(kept) or "document"
