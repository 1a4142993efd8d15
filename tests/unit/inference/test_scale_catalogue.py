"""What an ingress knows of models by its replicas' reports, and how their figures add up."""

from collections.abc import Callable
from pathlib import Path

import pytest

from inference.errors import BundleRefused, ModelNotFound, ModelNotReady, NotOffered
from inference.ports import ModelState
from inference.scale.catalogue import SILENT_S, Catalogue
from inference.scale.figures import GatheredStatistics
from inference.scale.replies import Report
from inference.statistics import Key, ModelFigures, Stages, Statistics
from protos.model_manifest import ModelBundle
from tests.bundles import threshold_manifest

EXPECTED: tuple[Key, ...] = (("lung", "1"), ("lung", "2"), ("heart", "1"))
REFUSED = {("bone", "1"): "its list is wrong"}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def catalogue(clock: Callable[[], float] = lambda: 0.0) -> Catalogue:
    return Catalogue(EXPECTED, REFUSED, clock)


def report(replica: str, model: str, **states: str) -> Report:
    """A replica's report of versions, "v1" -> state; a state that is none is the reason of a refusal."""
    known = {"READY", "LOADING"}
    rows = [
        ModelState(model, key[1:], state) if state in known else ModelState(model, key[1:], "UNAVAILABLE", state)  # type: ignore[arg-type]
        for key, state in states.items()
    ]
    bundles = [
        ModelBundle(Path("/models"), threshold_manifest(name=model, version=row.version), "digest")
        for row in rows
        if row.state == "READY"
    ]
    return Report(replica, model, tuple(rows), tuple(bundles), {})


def states(of: Catalogue) -> dict[Key, str]:
    return {(state.name, state.version): state.state for state in of.index()}


def test_before_any_report_models_are_loading_and_refused_ones_say_why() -> None:
    known = catalogue()
    assert states(known) == {
        ("bone", "1"): "UNAVAILABLE", ("heart", "1"): "LOADING", ("lung", "1"): "LOADING", ("lung", "2"): "LOADING",
    }  # fmt: skip
    assert not known.is_ready
    assert not known.is_settled
    with pytest.raises(ModelNotReady, match="lung/2 is still loading"), known.lease("lung"):
        pass
    with pytest.raises(BundleRefused, match="bone/1 failed its checks: its list is wrong"), known.lease("bone"):
        pass
    with pytest.raises(ModelNotFound, match=r"expected one of \['bone', 'heart', 'lung'\], got 'nobody'"):
        known.lease("nobody").__enter__()


def test_a_version_has_the_best_state_that_a_replica_has_it_in() -> None:
    known = catalogue()
    known.note(report("a", "lung", v1="READY", v2="LOADING"))
    known.note(report("b", "lung", v1="READY", v2="READY"))
    known.note(report("c", "heart", v1="the golden pair differs"))
    assert states(known)["lung", "2"] == "READY"
    assert known.is_settled
    assert not known.is_ready
    with known.lease("lung") as model:
        assert model.bundle.manifest.identity.version == "2"
    with pytest.raises(BundleRefused, match="golden pair"), known.lease("heart"):
        pass
    assert list(known.versions("lung")) == ["1", "2"]
    assert set(known.replicas("lung")) == {"a", "b"}


def test_a_replica_that_is_silent_is_gone_and_its_model_loads_until_another_speaks() -> None:
    clock = Clock()
    known = catalogue(clock)
    known.note(report("a", "lung", v1="READY", v2="READY"))
    clock.now = SILENT_S - 1
    assert states(known)["lung", "1"] == "READY"
    clock.now = SILENT_S + 1
    assert states(known)["lung", "1"] == "LOADING"
    assert known.replicas() == ()
    known.note(report("b", "lung", v1="READY", v2="READY"))
    assert states(known)["lung", "1"] == "READY"


def test_models_are_loaded_by_their_folder_alone() -> None:
    for refuse in (catalogue().load, catalogue().unload):
        with pytest.raises(NotOffered):
            refuse("lung")


def counted(successes: int, failures: int, batch: int = 1) -> Statistics:
    statistics = Statistics()
    for _ in range(successes):
        statistics.record_success("lung", "1", Stages(0.001, 0.002, 0.003, 0.004, batch_size=batch))
    for _ in range(failures):
        statistics.record_failure("lung", "1", 0.5)
    return statistics


def test_figures_of_replicas_add_up_and_go_with_them() -> None:
    gathered = GatheredStatistics()
    gathered.note("a", counted(3, 1).snapshot())
    gathered.note("b", counted(2, 0, batch=4).snapshot())
    of = gathered.of("lung", "1")
    assert (of.success.count, of.fail.count, of.executions) == (5, 1, 5)
    assert of.success.ns == pytest.approx(5 * 10_000_000, rel=1e-6)
    assert of.computing.infer.ns == pytest.approx(5 * 3_000_000, rel=1e-6)
    assert {size: part.infer.count for size, part in of.by_batch.items()} == {1: 3, 4: 2}
    assert set(gathered.snapshot()) == {("lung", "1")}
    gathered.forget_all_but(["b"])
    assert gathered.of("lung", "1").success.count == 2
    assert gathered.of("heart", "1") == ModelFigures()


def test_figures_that_arrive_late_do_not_replace_newer_ones() -> None:
    gathered = GatheredStatistics()
    gathered.note("a", counted(3, 0).snapshot())
    gathered.note("a", counted(2, 0).snapshot())
    assert gathered.of("lung", "1").success.count == 3
