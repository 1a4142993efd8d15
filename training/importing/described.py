"""The manifest of an imported model, from its recipe."""

from protos.finding_rules import Concept, LabelClass, LabelFindings
from protos.model_manifest import Identity, Memory, ModelManifest, Origin, Tensor
from training.importing.recipe import Recipe, RecipeLabel
from training.importing.source import Source

LABELS, CERTAINTY = "labels", "certainty"
RUNTIME_MINIMUM = "2.21"
_MAP = (-1, -1, -1)
_COLORS = (
    (230, 25, 75), (60, 180, 75), (255, 225, 25), (0, 130, 200), (245, 130, 48), (145, 30, 180), (70, 240, 240),
    (240, 50, 230), (210, 245, 60), (250, 190, 212), (0, 128, 128), (220, 190, 255), (170, 110, 40), (255, 250, 200),
    (128, 0, 0), (170, 255, 195), (128, 128, 0), (255, 215, 180), (0, 0, 128), (128, 128, 128),
)  # fmt: skip


def described(recipe: Recipe, source: Source) -> ModelManifest:
    """Return the manifest; its memory figures are 0 until they are measured."""
    return ModelManifest(
        schema_version=1,
        identity=Identity(**recipe.identity.model_dump(), runtime_minimum=RUNTIME_MINIMUM),
        use=recipe.use,
        accepts=recipe.accepts,
        inputs=(
            Tensor(name="image", datatype="INT16", shape=_MAP),
            Tensor(name="slope", datatype="FP32", shape=(-1,)),
            Tensor(name="intercept", datatype="FP32", shape=(-1,)),
            Tensor(name="spacing", datatype="FP32", shape=(3,)),
        ),
        outputs=(
            Tensor(name=LABELS, datatype="UINT8", shape=_MAP),
            Tensor(name=CERTAINTY, datatype="FP32", shape=(1,)),
        ),
        findings=(
            LabelFindings(
                kind="labels",
                output=LABELS,
                classes=tuple(_class(item) for item in recipe.labels),
                min_volume_ml=recipe.min_volume_ml,
            ),
        ),
        memory=Memory(base_mb=0, bytes_per_voxel=0),
        licence=recipe.origin.licence,
        calibration="none: probabilities are the network's own",
        operating_point="the most probable class of each voxel",
        origin=Origin(
            file=source.name,
            sha256=source.sha256,
            kind=source.kind,
            source=recipe.origin.source,
            credit=recipe.origin.credit,
        ),
    )


def _class(item: RecipeLabel) -> LabelClass:
    red, green, blue = item.color_rgb or _COLORS[(item.index - 1) % len(_COLORS)]
    concept = Concept(category=item.category, type=item.type, site=item.site, color_rgb=(red, green, blue))
    return LabelClass(index=item.index, label=item.label, concept=concept)
