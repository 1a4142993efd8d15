"""One real inference service for the protocol tests: it takes seconds to start."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bundles import threshold_bundle
from tests.inference_service import RunningService, running_service
from tests.odd_bundles import odd_bundles


@pytest.fixture(scope="session")
def good_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The threshold model and the odd ones, all loadable."""
    models = tmp_path_factory.mktemp("models") / "good"
    shutil.copytree(odd_bundles() / "good", models)
    threshold_bundle(models)
    return models


@pytest.fixture(scope="session")
def service(good_models: Path) -> Iterator[RunningService]:
    with running_service(good_models) as running:
        yield running


@pytest.fixture(params=["tcp", "unix"])
def endpoint(request: pytest.FixtureRequest, service: RunningService) -> str:
    """The session's service over TCP, then over its Unix socket."""
    return service.tcp if request.param == "tcp" else service.unix
