"""Recipes: the example and the published ones are right, wrong ones are refused by field, value and remedy."""

from pathlib import Path
from typing import Any

import pytest

from tests.foreign_models import flat_recipe, recipe_of, write_recipe
from training.importing.described import described
from training.importing.errors import RecipeRefused
from training.importing.memory_figures import measured_memory
from training.importing.recipe import EXAMPLE, Recipe, read_recipe
from training.importing.source import Source

ROOT = Path(__file__).resolve().parents[3]
SOURCE = Source("net.keras", "keras", "ab" * 32, 1)


@pytest.mark.parametrize("path", [EXAMPLE, *sorted((ROOT / "docs" / "howto" / "recipes").glob("*.toml"))], ids=str)
def test_printed_and_published_recipes_make_a_manifest(path: Path) -> None:
    manifest = described(read_recipe(path), SOURCE)
    assert manifest.findings[0].kind == "labels"
    assert manifest.origin is not None


def test_the_examples_comments_show_right_keys() -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    begin = lines.index(next(line for line in lines if line.startswith("[network]")))
    shown = [line.lstrip("# ") for line in lines[begin:] if line.startswith("# ") and "=" in line.split("#")[1]]
    keys = {line.split(" =")[0] for line in shown}
    assert {"dimensions", "channels", "activation", "window", "block", "halo", "slices", "signature"} <= keys


def wrong(**changes: Any) -> dict[str, Any]:
    return recipe_of(**changes)


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (wrong(identity={"name": "My Model", "title": "x", "manufacturer": "y"}), r"identity\.name: .*'My Model'"),
        (wrong(normalisation={"kind": "magic"}), r"normalisation: .*'magic'"),
        (wrong(normalisation={"kind": "quantiles", "upper": 1.2}), r"normalisation\.upper: .*1\.2"),
        (wrong(normalisation={"kind": "quantiles", "lower": 0.9, "upper": 0.1}), r"normalisation: .*less than upper"),
        (wrong(normalisation={"kind": "scale", "divide": 0.0}), "divide must not be 0"),
        (wrong(grid={"size": [20, 24]}), r"grid\.size \[20, 24\] must have 3 numbers"),
        (wrong(grid={"size": [8, 8, 8], "multiple_of": [8, 8, 8]}), "exclude each other"),
        (wrong(grid={"spacing": [1, 1, 1]}), r"grid\.spacing: Extra inputs"),
        (wrong(network={"run": "windows"}), "window goes with run = 'windows'"),
        (wrong(network={"run": "blocks", "block": [8, 8, 8], "halo": 4}), "larger than two halos"),
        (wrong(network={"activation": "sigmoid"}), "goes with one label"),
        (wrong(network={"dimensions": 2, "run": "blocks", "block": [8, 8]}, grid={}), "three dimensions"),
        (wrong(labels=[]), "labels"),
        (wrong(labels=recipe_of()["labels"][1:]), r"labels have the indexes \[2\]"),
        (wrong(accepts={"modalities": ["MR"]}), r"needs accepts\.slice_spacing_mm\.most"),
        (wrong(accepts={"modalities": ["MR"], "axes": "SPP"}), r"accepts: .*'SPP'"),
        (wrong(origin=None), "origin: Field required"),
        (wrong(schema_version=2), r"schema_version: .*\(got 2\)"),
    ],
)
def test_a_wrong_recipe_names_field_value_and_remedy(recipe: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeRefused, match=said) as refused:
        read_recipe(write_recipe(tmp_path / "recipe.toml", recipe))
    assert "hilum models recipe" in str(refused.value)


def test_a_recipe_that_is_no_toml_or_not_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    with pytest.raises(RecipeRefused, match="cannot be read"):
        read_recipe(path)
    path.write_text("a = [", encoding="utf-8")
    with pytest.raises(RecipeRefused, match="cannot be read as TOML"):
        read_recipe(path)
    path.write_text("a" * (1 << 21), encoding="utf-8")
    with pytest.raises(RecipeRefused, match="at most"):
        read_recipe(path)


@pytest.mark.parametrize(
    ("recipe", "shape"),
    [
        (recipe_of(), (20, 24, 22)),
        (recipe_of(network={"run": "blocks", "block": [13, 12, 11], "halo": 3}), (7, 6, 5)),
        (recipe_of(network={"run": "windows", "window": [16, 16, 16]}), (20, 20, 20)),
        (recipe_of(grid={"multiple_of": [24, 16, 16]}), (72, 64, 64)),
        (flat_recipe(), (6, 32, 48)),
    ],
)
def test_memory_is_measured_on_the_largest_run_and_stated_with_what_it_held(
    recipe: dict[str, Any], shape: tuple[int, ...]
) -> None:
    wanted = Recipe.model_validate(recipe)
    seen = []

    def predict(inputs: dict[str, Any]) -> None:
        seen.append((inputs["image"].shape, inputs["spacing"]))
        bytearray(300 << 20)

    memory = measured_memory(wanted, wanted.network.halo or 0, predict, 0)
    ((sizes, spacing),) = seen
    target = [1.0] * (3 - len(wanted.grid.spacing_mm or ())) + list(wanted.grid.spacing_mm or ())
    for size, mm, want, length in zip(sizes, spacing, target, shape, strict=True):
        assert abs(size * mm / want - length) <= mm / want
    stated = memory.base_mb * 1e6 + memory.bytes_per_voxel * sizes[0] * sizes[1] * sizes[2]
    assert stated >= 300 << 20
