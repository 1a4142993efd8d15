"""The models as the ingress knows them, by what their replicas say every second."""

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

from inference.call import Call
from inference.errors import ModelNotReady
from inference.ports import Arrays, LoadedModel, ModelState, Outcome, Places
from inference.repository_folders import Key
from inference.repository_shelf import Shelf
from inference.scale.replies import Report
from inference.servicer_unoffered import not_offered
from protos.model_manifest import ModelBundle

SILENT_S = 10.0
"""A replica that says nothing for so long is gone."""
_RANK = {"READY": 3, "LOADING": 2, "UNAVAILABLE": 1, "UNLOADING": 0, "UNKNOWN": 0}


class _Elsewhere:
    """Stands for the runner of a model that other processes hold."""

    def run(self, inputs: Arrays, call: Call, places: Places) -> Outcome:
        """Refuse: predictions go to the replicas."""
        del inputs, call, places
        raise ModelNotReady("the model runs in other processes")


class Catalogue:
    """Is `inference.ports.Models` for every RPC but inference; safe to share between threads."""

    def __init__(
        self, expected: Collection[Key], refused: Mapping[Key, str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Know the versions that have replicas, as loading, and those refused when the application started."""
        self._clock = clock
        self._expected = tuple(expected)
        self._refused = dict(refused)
        self._lock = threading.Lock()
        self._reports: dict[str, tuple[float, Report]] = {}

    def note(self, report: Report) -> None:
        """Take the newest report of a replica."""
        with self._lock:
            self._reports[report.replica] = (self._clock(), report)

    def replicas(self, model: str = "") -> tuple[str, ...]:
        """Name the replicas that are heard, of a model or of all."""
        return tuple(report.replica for report in self._heard() if model in ("", report.model))

    @contextmanager
    def lease(self, name: str, version: str = "", call: Call | None = None) -> Iterator[LoadedModel]:
        """Give what is known of a version that answers; refuse as the repository of a single service does."""
        del call
        shelf = self._shelf()
        key, copy = shelf.take(name, version)
        if copy is None:
            raise ModelNotReady(f"model {'/'.join(key)} is still loading")
        yield copy.model

    def versions(self, name: str) -> Sequence[str]:
        """Give the versions known, in rising order."""
        return [state.version for state in self.index() if state.name == name]

    def index(self) -> Sequence[ModelState]:
        """Give every version with the best state that a replica has it in."""
        reports = self._heard()
        best = {key: ModelState(*key, "UNAVAILABLE", reason) for key, reason in self._refused.items()}
        reporting = {report.model for report in reports}
        best |= {key: ModelState(*key, "LOADING") for key in self._expected if key[0] not in reporting}
        for state in (state for report in reports for state in report.states):
            known = best.get((state.name, state.version))
            if known is None or _RANK[state.state] > _RANK[known.state]:
                best[state.name, state.version] = state
        return sorted(best.values(), key=lambda state: (state.name, int(state.version)))

    def load(self, name: str) -> None:
        """Refuse: a replica follows its folder."""
        del name
        not_offered("RepositoryModelLoad")

    def unload(self, name: str) -> None:
        """Refuse."""
        del name
        not_offered("RepositoryModelUnload")

    @property
    def is_ready(self) -> bool:
        """Tell whether every model has a version that answers."""
        able = {state.name: False for state in self.index()}
        for state in self.index():
            able[state.name] |= state.state == "READY"
        return bool(able) and all(able.values())

    @property
    def is_settled(self) -> bool:
        """Tell whether every model was reported on and one of them answers."""
        states = {state.state for state in self.index()}
        return "READY" in states and "LOADING" not in states

    def _heard(self) -> list[Report]:
        since = self._clock() - SILENT_S
        with self._lock:
            self._reports = {name: of for name, of in self._reports.items() if of[0] >= since}
            return [report for _, report in self._reports.values()]

    def _shelf(self) -> Shelf:
        bundles = {_key(bundle): bundle for report in self._heard() for bundle in report.bundles}
        shelf = Shelf()
        for state in self.index():
            key = (state.name, state.version)
            if state.state == "READY" and key in bundles:
                shelf.put(key, LoadedModel(bundles[key], _Elsewhere()))
            elif state.state == "UNAVAILABLE":
                shelf.refuse(key, state.reason)
            else:
                shelf.expect(key)
        return shelf


def _key(bundle: ModelBundle) -> Key:
    return bundle.manifest.identity.name, bundle.manifest.identity.version
