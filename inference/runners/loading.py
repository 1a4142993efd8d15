"""The runner that answers for a bundle."""

from inference.ports import Runner
from inference.runners.whole import load_predictor
from protos.model_manifest import ModelBundle


def load_runner(bundle: ModelBundle) -> Runner:
    """Check, import and warm a bundle; every bundle has `serving_default`, which answers whole.

    Raises:
        BundleRefused: graph, signature or golden pair are not what they must be.
    """
    return load_predictor(bundle)
