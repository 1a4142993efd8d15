"""The series on their way to the service before they are whole: a few at once, claimed by the volume that they become.

An upload belongs to one study, series and layout of voxels. Whoever takes it out (a claim, an end) owns it from then
on; it never comes back, so that a late slice cannot change a volume that is being worked on.
"""

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

import structlog

from node.inference_client.early_upload import EarlyUpload
from node.inference_client.endpoints import Endpoint

_log = structlog.get_logger(__name__)
QUIET_S: Final = 10.0
"""A series that grew within this time keeps its place; after it another one may take the place."""
Model = tuple[str, str]
"""Name and version."""


@dataclass(frozen=True, slots=True)
class UploadKey:
    """What an early upload is of."""

    study_uid: str
    series_uid: str
    axes: str
    """Of the manifest, as `node.domain.orientation` has them."""
    datatype: str
    """Of the manifest's image."""


@dataclass(slots=True)
class _Place:
    upload: EarlyUpload
    models: set[Model]
    """Those that may take the series; when the last has not, the upload is given up."""
    grown_at: float


class EarlyUploads:
    """At most `most` open uploads; safe to share between threads."""

    def __init__(self, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Hold none yet."""
        self._most, self._clock = most, clock
        self._lock = threading.Lock()
        self._places: dict[UploadKey, _Place] = {}

    @property
    def is_empty(self) -> bool:
        """Tell whether none is open."""
        return not self._places

    def make_room(self) -> bool:
        """Tell whether there is a place for another; the one that has been quiet the longest is given up for it."""
        with self._lock:
            if len(self._places) < self._most:
                return True
            key, quietest = min(self._places.items(), key=lambda item: item[1].grown_at)
            if self._clock() - quietest.grown_at < QUIET_S:
                return False
        self.drop(key, "another series needs its place")
        return True

    def add(self, key: UploadKey, upload: EarlyUpload, models: Collection[Model]) -> None:
        """Hold an upload that has begun; an earlier one of the same volume is given up."""
        self.drop(key, "it was begun again")
        with self._lock:
            self._places[key] = _Place(upload, set(models), self._clock())
        _log.info(
            "early_upload_begun",
            study_uid=key.study_uid,
            series_uid=key.series_uid,
            endpoint=upload.endpoint.address,
            bytes=upload.plan.slots * upload.plan.slot_bytes,
        )

    def growing(self, key: UploadKey) -> EarlyUpload | None:
        """Give the upload to send another slice of the series into; None where there is none (any more)."""
        with self._lock:
            place = self._places.get(key)
            if place is None:
                return None
            place.grown_at = self._clock()
            return place.upload

    def claim(self, key: UploadKey) -> EarlyUpload | None:
        """Take out the upload of a volume that is whole now; nothing is sent into it any more but by its owner."""
        with self._lock:
            place = self._places.pop(key, None)
        return place.upload if place is not None else None

    def judged(self, study_uid: str, model: Model, series_uid: str | None) -> None:
        """Give up what a model will not ask for: every series of the study but the one that it took, if any."""
        with self._lock:
            unwanted = []
            for key, place in self._places.items():
                if key.study_uid == study_uid and key.series_uid != series_uid and model in place.models:
                    place.models.discard(model)
                    if not place.models:
                        unwanted.append(key)
        for key in unwanted:
            self.drop(key, "no model takes the series")

    def give_way(self, endpoint: Endpoint) -> bool:
        """Give up the oldest upload at an endpoint whose service has no room; tell whether there was one."""
        with self._lock:
            key = next((item for item, place in self._places.items() if place.upload.endpoint is endpoint), None)
        return key is not None and self.drop(key, "the service has no room beside it")

    def expire(self, idle_s: float) -> None:
        """Give up what is lost, and what has neither grown nor been asked for in `idle_s`."""
        since = self._clock() - idle_s
        with self._lock:
            lost = [key for key, place in self._places.items() if not place.upload.is_alive]
            idle = [key for key, place in self._places.items() if place.grown_at < since]
        for key in lost:
            self.drop(key, "the service ended it")
        for key in idle:
            self.drop(key, f"no slice came and no model asked for {idle_s:g} s")

    def drop(self, key: UploadKey, reason: str) -> bool:
        """Give one up, and say why; tell whether it was there."""
        upload = self.claim(key)
        if upload is None:
            return False
        note_drop(key, upload, reason)
        upload.abandon()
        return True

    def close(self) -> None:
        """Give all up."""
        with self._lock:
            keys = list(self._places)
        for key in keys:
            self.drop(key, "the node stops")


def note_drop(key: UploadKey, upload: EarlyUpload, reason: str) -> None:
    """Say that what was sent early is not used; the volume is uploaded whole."""
    _log.info(
        "early_upload_dropped",
        study_uid=key.study_uid,
        series_uid=key.series_uid,
        count=upload.count,
        reason=reason,
    )
