"""The repository follows its folder: real bundles, loaded, replaced, evicted and let go."""

import gc
import shutil
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from inference.errors import SettingsRefused
from inference.repository_policy import VersionPolicy
from protos.model_manifest import MANIFEST_FILE, write_digest_list
from tests.bundles import threshold_bundle
from tests.waiting import wait_until

pytest.importorskip("tensorflow")

import tensorflow as tf
from tensorflow.python.eager import context

from inference.admission import MB, Admission, MemoryState
from inference.call import Call
from inference.errors import BundleRefused, ModelNotFound, ModelNotReady, RequestCancelled
from inference.golden import warming_inputs
from inference.ports import LoadedModel
from inference.repository import MemoryFloor, ModelRepository

NAME = "bright_regions"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A models folder with version 1 of one model."""
    threshold_bundle(tmp_path / "models")
    return tmp_path / "models"


@pytest.fixture
def repository(models: Path) -> ModelRepository:
    loaded = ModelRepository(models)
    loaded.load_all()
    return loaded


def publish(models: Path, version: str, *, name: str = NAME, broken: bool = False) -> Path:
    """Make a version beside the folder and put it there by a rename."""
    made = threshold_bundle(models.parent / f"staging-{time.monotonic_ns()}", name=name, version=version).directory
    if broken:
        content = (made / "saved_model.pb").read_bytes()
        (made / "saved_model.pb").write_bytes(content[: len(content) // 2])
        write_digest_list(made)
    (models / name).mkdir(exist_ok=True)
    return made.rename(models / name / version)


def retitle(bundle: Path, title: str, *, listed: bool = True) -> None:
    path = bundle / MANIFEST_FILE
    path.write_text(path.read_text(encoding="utf-8").replace("Bright regions", title), encoding="utf-8")
    if listed:
        write_digest_list(bundle)


def states(repository: ModelRepository) -> dict[str, str]:
    return {f"{state.name}/{state.version}": state.state for state in repository.index()}


def reason(repository: ModelRepository, version: str) -> str:
    [found] = [state.reason for state in repository.index() if state.version == version]
    return found


def answering(repository: ModelRepository) -> str:
    with repository.lease(NAME) as model:
        return model.bundle.manifest.identity.version


def answers(model: LoadedModel) -> bool:
    inputs = warming_inputs(model.bundle.manifest)
    return set(model.runner.run(inputs, Call(), {}).outputs) == {"probability"}


@pytest.mark.parametrize(
    ("text", "chosen"),
    [("all", ["2", "9", "10"]), ("latest:1", ["10"]), ("latest:2", ["9", "10"]), ("9,2,7", ["2", "9"])],
)
def test_the_policy_chooses_by_number(text: str, chosen: list[str]) -> None:
    assert VersionPolicy.parse(text).chosen(["10", "9", "2"]) == chosen


@pytest.mark.parametrize("text", ["", "latest", "latest:0", "1,", "one", "-1", "latest:-1"])
def test_a_policy_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SettingsRefused, match="must be 'all', 'latest:N' or a list"):
        VersionPolicy.parse(text)


def test_a_new_version_answers_and_its_removal_gives_the_old_one_back(
    repository: ModelRepository, models: Path
) -> None:
    assert answering(repository) == "1"
    publish(models, "2")
    repository.poll()
    assert answering(repository) == "2"
    shutil.rmtree(models / NAME / "2")
    repository.poll()
    assert answering(repository) == "2"
    repository.poll()
    assert answering(repository) == "1"
    assert states(repository) == {f"{NAME}/1": "READY"}


def test_a_broken_version_never_replaces_a_good_one(repository: ModelRepository, models: Path) -> None:
    publish(models, "2", broken=True)
    with capture_logs() as logs:
        repository.poll()
        repository.poll()
    assert answering(repository) == "1"
    assert "cannot be read as a SavedModel" in reason(repository, "2")
    assert [line["event"] for line in logs] == ["model_refused"]
    assert repository.is_ready


def test_changed_content_is_swapped_while_the_old_runs_to_its_end(repository: ModelRepository, models: Path) -> None:
    with capture_logs() as logs, repository.lease(NAME) as old:
        retitle(models / NAME / "1", "Brighter regions")
        repository.poll()
        with repository.lease(NAME) as new:
            assert new.bundle.manifest.identity.title == "Brighter regions"
            assert answers(new)
        assert old.bundle.digest != new.bundle.digest
        assert answers(old)
        assert [line["event"] for line in logs] == ["model_replaced"]
    assert [line["event"] for line in logs] == ["model_replaced", "model_unloaded"]
    assert logs[1]["digest"] == old.bundle.digest


def test_damaged_content_of_a_good_version_is_told_and_mended(repository: ModelRepository, models: Path) -> None:
    retitle(models / NAME / "1", "Half copied", listed=False)
    repository.poll()
    repository.poll()
    assert reason(repository, "1") == ""  # may still be being copied
    repository.poll()
    assert "content is not what bundle.sha256 lists" in reason(repository, "1")
    with repository.lease(NAME) as model:
        assert model.bundle.manifest.identity.title == "Bright regions"
    write_digest_list(models / NAME / "1")
    repository.poll()
    assert reason(repository, "1") == ""
    with repository.lease(NAME) as model:
        assert model.bundle.manifest.identity.title == "Half copied"


def test_a_folder_that_is_being_filled_is_not_yet_there(repository: ModelRepository, models: Path) -> None:
    whole = threshold_bundle(models.parent / "staging", version="2").directory
    part = models / NAME / "2"
    part.mkdir()
    with capture_logs() as logs:
        for file in sorted(whole.iterdir(), key=lambda path: path.name == "bundle.sha256"):
            shutil.copy(file, part / file.name)
            repository.poll()
            repository.poll()
    assert [line["event"] for line in logs] == ["model_loaded"]
    assert answering(repository) == "2"


def test_only_the_latest_stays_once_it_answers(models: Path) -> None:
    repository = ModelRepository(models, policy=VersionPolicy.parse("latest:1"))
    repository.load_all()
    publish(models, "2", broken=True)
    repository.poll()
    assert answering(repository) == "1"
    publish(models, "3")
    repository.poll()
    assert states(repository)[f"{NAME}/3"] == "READY"
    assert f"{NAME}/1" not in states(repository)


def test_unload_lets_running_requests_end_and_load_brings_it_back(repository: ModelRepository) -> None:
    with repository.lease(NAME) as model:
        repository.unload(NAME)
        assert states(repository) == {f"{NAME}/1": "UNLOADING"}
        assert answers(model)
    assert states(repository) == {f"{NAME}/1": "UNAVAILABLE"}
    assert reason(repository, "1") == "unloaded on request"
    repository.poll()
    with pytest.raises(ModelNotReady, match="unloaded on request"):
        answering(repository)
    repository.load(NAME)
    assert answering(repository) == "1"


def test_load_names_what_is_broken_and_what_is_not_there(repository: ModelRepository, models: Path) -> None:
    publish(models, "2", broken=True)
    with pytest.raises(BundleRefused, match=rf"model {NAME}/2: .*SavedModel"):
        repository.load(NAME)
    assert answering(repository) == "1"
    for name in ("nobody", "../models", ""):
        with pytest.raises(ModelNotFound):
            repository.load(name)


@pytest.fixture
def short(models: Path) -> ModelRepository:
    """Two models on a machine of 100 MiB, of which each takes 40."""
    threshold_bundle(models, name="other")
    found: list[ModelRepository] = []
    floor = MemoryFloor(state=lambda: MemoryState(100 * MB, (100 - 40 * len(found[0].loaded())) * MB))
    found.append(ModelRepository(models, floor=floor))
    found[0].load_all()
    return found[0]


def test_the_least_recently_used_idle_model_goes_and_comes_back(short: ModelRepository) -> None:
    for name in ("other", NAME):
        with short.lease(name):
            pass
    assert short.relieve(30 * MB)
    assert [model.bundle.manifest.identity.name for model in short.loaded()] == [NAME]
    assert states(short)["other/1"] == "UNAVAILABLE"
    assert "lack of memory" in next(state.reason for state in short.index() if state.name == "other")
    with short.lease("other", call=Call(deadline=time.monotonic() + 60)) as model:
        assert answers(model)


def test_freed_memory_goes_back_before_a_model_does(models: Path) -> None:
    free = [30 * MB]
    floor = MemoryFloor(state=lambda: MemoryState(100 * MB, free[0]), give_back=lambda: free.__setitem__(0, 60 * MB))
    repository = ModelRepository(models, floor=floor)
    repository.load_all()
    free[0] = 30 * MB
    assert repository.relieve(20 * MB)
    assert len(repository.loaded()) == 1


def test_a_held_model_is_never_evicted(short: ModelRepository) -> None:
    with short.lease("other"), short.lease(NAME):
        assert not short.relieve(1000 * MB)
    assert len(short.loaded()) == 2


def test_who_cannot_wait_for_the_return_is_told_to_retry(short: ModelRepository) -> None:
    assert short.relieve(1000 * MB)
    with pytest.raises(ModelNotReady, match="being loaded again"), short.lease(NAME, call=Call(deadline=0.0)):
        pass
    gone = Call()
    gone.ended.set()
    with pytest.raises(RequestCancelled), short.lease("other", call=gone):
        pass
    wait_until(lambda: len(short.loaded()) == 2, what="both models' return")


def test_admission_takes_memory_from_idle_models(short: ModelRepository) -> None:
    admission = Admission(1, 1, memory=short._floor.state, relieve=short.relieve)
    with short.lease(NAME), admission.admitted(50 * MB, Call()):
        assert [model.bundle.manifest.identity.name for model in short.loaded()] == [NAME]


def test_sixty_loads_and_unloads_leave_no_graph_behind(repository: ModelRepository) -> None:
    def alive() -> tuple[int, int]:
        gc.collect()
        graphs = sum(isinstance(item, tf.Graph) for item in gc.get_objects())
        return graphs, len(context.context().list_function_names())

    def cycle() -> None:
        repository.unload(NAME)
        repository.load(NAME)

    cycle()
    before = alive()
    assert before[0] > 0
    for _ in range(60):
        cycle()
    assert alive() == before
