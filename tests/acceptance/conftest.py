"""What the acceptance tests share: one inference service with the threshold model, small studies, a stand-in PACS."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from node.testing.pacs import StandInPacs
from node.testing.phantom import PhantomTruth, write_phantom
from tests.bundles import threshold_bundle
from tests.inference_service import RunningService, running_service
from tests.node_process import NodeProcess
from tests.orthanc import Orthanc, free_port


@pytest.fixture(scope="session")
def bright_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models directory with the threshold model alone."""
    models = tmp_path_factory.mktemp("bright") / "models"
    threshold_bundle(models)
    return models


@pytest.fixture(scope="session")
def bright_service(bright_models: Path) -> Iterator[RunningService]:
    with running_service(bright_models) as running:
        yield running


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[StandInPacs]:
    with StandInPacs(tmp_path / "pacs") as running:
        yield running


@pytest.fixture
def bright_node(
    tmp_path: Path, bright_models: Path, bright_service: RunningService, pacs: StandInPacs
) -> Iterator[NodeProcess]:
    """A node that runs the threshold model and delivers to `pacs`; the test starts it."""
    node = NodeProcess(
        tmp_path / "node",
        bright_service.tcp,
        models=bright_models,
        destinations=(pacs.destination(retry_first_s=0.2, retry_most_s=1.0),),
    )
    yield node
    node.stop()


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    """An Orthanc that knows a node at a free port; the test starts it."""
    if not Orthanc.installed():
        pytest.skip("Orthanc is not installed (scripts/system-packages installs it where it may)")
    server = Orthanc(tmp_path / "orthanc", node_port=free_port())
    yield server
    server.stop()


@pytest.fixture
def small_study(tmp_path: Path) -> Callable[[int], PhantomTruth]:
    """Give a function from a seed to a chest CT of 12 slices of 64 x 64 in a folder of its own."""

    def written(seed: int) -> PhantomTruth:
        return write_phantom(tmp_path / f"study{seed}", slices=12, size=64, slice_spacing_mm=10.0, seed=seed)

    return written
