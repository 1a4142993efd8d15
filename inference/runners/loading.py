"""The runner that answers for a bundle."""

from inference.graph.frozen import SAVED_MODEL_FILE, read_frozen_graph
from inference.ports import Runner
from inference.runners.replicas import on_every_device
from inference.runners.slabs import load_slab_runner
from inference.runners.tiles import load_tile_runner
from inference.runners.whole import load_predictor, refuse_older_runtime
from protos.model_manifest import ModelBundle


def load_runner(bundle: ModelBundle) -> Runner:
    """Check, import and warm a bundle: in slabs or in tiles where its manifest says so, else whole.

    A model that runs whole or in slabs runs on each of several GPUs.

    Raises:
        BundleRefused: graph, signature or golden pair are not what they must be.
    """
    manifest = bundle.manifest
    if manifest.slabs is None and manifest.batching is None:
        return on_every_device(lambda device: load_predictor(bundle, device))
    refuse_older_runtime(manifest)
    graph = read_frozen_graph(bundle.directory / SAVED_MODEL_FILE, manifest)
    if manifest.slabs is not None:
        return on_every_device(lambda device: load_slab_runner(bundle, graph, device))
    return load_tile_runner(bundle, graph)
