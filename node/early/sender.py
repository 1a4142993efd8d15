"""Sends slices of a series that a model may take while its study still arrives; no C-STORE ever waits for it.

The listener's threads put one small record into a bounded queue; all else happens on a thread of this module. What is
skipped here is sent when the volume is whole, so nothing depends on it but time.
"""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from node.domain.image_rules import VOLUME_SOP_CLASSES
from node.domain.instances import ImageHeader, ReceivedInstance
from node.early.slice_plan import SlicePlan, kind_of, plans_of
from node.errors import DecodingError, NotUnderstood
from node.imaging.headers import read_header
from node.inference_client.client import InferenceClient
from node.inference_client.early_upload import EarlyUploadLost, SlotPlan
from node.inference_client.early_uploads import UploadKey
from protos.model_manifest import ModelBundle

log = structlog.get_logger()
RECORDS_MOST: Final = 4096
SERIES_MOST: Final = 256
"""Series remembered, so that one whose upload was used or given up is not begun again."""
WAITING_MOST: Final = 64
"""Images of a series that wait for its upload to begin; others are sent when the volume is whole."""
PAUSE_S: Final = 60.0
"""Time for which nothing is tried where no endpoint can be uploaded to, or none needs it."""
TICK_S: Final = 0.1
"""How often the thread looks at what was noted."""
REST: Final = 9.0
"""Rest after each slice, in times of the computing that it took: a tenth of a core, so that receiving comes first.
That is still more than 1 Gbit/s; the study's settling time takes what is left over."""
_LOOK_S: Final = 1.0
_LEAST_SLICES: Final = 2


@dataclass(frozen=True, slots=True)
class EarlyTerms:
    """What the sender needs to know of the settings."""

    least_bytes: int
    """A series is begun once its slices take more: less travels in a message."""
    slices: int
    """Slices to ask room for where a header does not state more."""
    max_bytes: int
    """The most that a volume may take."""
    idle_s: float
    """An upload that no slice joins and no model asks for in this time is given up."""


@dataclass(slots=True)
class _Series:
    """A series that arrives."""

    study_uid: str
    series_uid: str
    kind: ImageHeader | None = None
    plans: tuple[SlicePlan, ...] = ()
    waiting: list[ImageHeader] = field(default_factory=list)
    """Not sent yet: the upload has not begun."""
    count: int = 0
    """Images seen."""
    begun: list[SlicePlan] = field(default_factory=list)
    is_over: bool = False

    def key(self, plan: SlicePlan) -> UploadKey:
        """Name the upload of one of its layouts."""
        return UploadKey(self.study_uid, self.series_uid, plan.axes, plan.datatype)

    def end(self) -> None:
        """Send no more of it."""
        self.is_over = True
        self.waiting.clear()
        self.begun.clear()


class EarlySender:
    """The queue, its thread, and what is known of the series that arrive."""

    def __init__(self, client: InferenceClient, bundles: Collection[ModelBundle], terms: EarlyTerms) -> None:
        """Keep the parts; nothing runs before `start`."""
        self._client, self._bundles, self._terms = client, bundles, terms
        # No lock, and no thread woken for each instance: that alone costs the listener 8 % of its speed.
        self._records: deque[ReceivedInstance] = deque()
        self._is_at_work = False
        self._series: OrderedDict[tuple[str, str], _Series] = OrderedDict()
        self._rests_until = self._looks_at = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="early-sender", daemon=True)

    def note(self, instance: ReceivedInstance) -> None:
        """Take note of a new durable instance, on its association's thread: at once, or not at all."""
        if instance.sop.sop_class_uid not in VOLUME_SOP_CLASSES or (self._rests and self._client.early.is_empty):
            return
        if len(self._records) < RECORDS_MOST:
            self._records.append(instance)
        else:
            log.debug("instance_skipped_early", sop_instance_uid=instance.sop.sop_instance_uid)

    def start(self) -> None:
        """Begin to send what is noted."""
        self._thread.start()

    def stop(self) -> None:
        """Give up what is under way and end the thread; nothing is lost but time."""
        self._stopping.set()
        self._client.early.close()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def is_idle(self) -> bool:
        """Tell whether everything noted has been looked at."""
        return not (self._records or self._is_at_work)

    @property
    def _rests(self) -> bool:
        """Tell whether no upload is begun for now: there was no endpoint for one a short while ago."""
        return time.monotonic() < self._rests_until

    def _run(self) -> None:
        try:
            while not self._stopping.wait(TICK_S):
                self._is_at_work = True
                while self._records and not self._stopping.is_set():
                    begun = time.thread_time()
                    self._take(self._records.popleft())
                    self._stopping.wait(REST * (time.thread_time() - begun))
                self._is_at_work = False
                self._look()
        finally:
            self._client.early.close()

    def _look(self) -> None:
        if time.monotonic() >= self._looks_at:
            self._looks_at = time.monotonic() + _LOOK_S
            self._client.early.expire(self._terms.idle_s)

    def _take(self, instance: ReceivedInstance) -> None:
        series = self._series_of(instance)
        if series.is_over or (self._rests and not series.begun):
            return
        try:
            header = read_header(instance.path)
        except (NotUnderstood, OSError):
            return  # the data path reads it again, and says what is wrong
        if not self._is_one_of(series, header):
            self._end(series, "its images differ")
            return
        series.count += 1
        if len(series.waiting) < WAITING_MOST:
            series.waiting.append(header)
        if not series.begun and not self._begins(series):
            return
        for waiting in series.waiting:
            for plan in tuple(series.begun):
                self._send(series, plan, waiting)
        series.waiting.clear()

    def _series_of(self, instance: ReceivedInstance) -> _Series:
        key = instance.study_uid, instance.series_uid
        series = self._series.setdefault(key, _Series(*key))
        self._series.move_to_end(key)
        if len(self._series) > SERIES_MOST:
            self._series.popitem(last=False)
        return series

    def _is_one_of(self, series: _Series, header: ImageHeader) -> bool:
        """Tell whether an image can be a slice of what its series has been so far."""
        kind = kind_of(header)
        if kind == series.kind:
            return True
        plans = plans_of(self._bundles, header)
        if series.kind is None:
            series.kind, series.plans = kind, plans
            return bool(plans)
        return len(plans) == len(series.plans) and all(map(SlicePlan.is_like, plans, series.plans))

    def _begins(self, series: _Series) -> bool:
        """Begin the series' uploads if it is time and there is a place; else it waits, or is left."""
        count = series.count
        rooms = [(plan, self._room(plan, series.waiting[-1])) for plan in series.plans]
        large = [(plan, room) for plan, room in rooms if room.slots >= max(count, _LEAST_SLICES)]
        if not large:
            series.end()
        for plan, room in large:
            is_time = count >= _LEAST_SLICES and count * room.slot_bytes > self._terms.least_bytes
            if is_time and not self._rests and self._client.early.make_room() and self._is_begun(series, plan, room):
                series.begun.append(plan)
        return bool(series.begun)

    def _is_begun(self, series: _Series, plan: SlicePlan, room: SlotPlan) -> bool:
        reason = self._client.begin_early(series.key(plan), room, plan.models)
        if reason:
            self._rests_until = time.monotonic() + PAUSE_S
            if reason != "mapped":
                log.info("early_upload_declined", series_uid=series.series_uid, reason=reason, seconds=PAUSE_S)
        return not reason

    def _room(self, plan: SlicePlan, header: ImageHeader) -> SlotPlan:
        one = SlotPlan(plan.datatype, plan.shape, 1)
        slots = min(max(self._terms.slices, header.stated_images or 0), self._terms.max_bytes // one.slot_bytes)
        return replace(one, slots=slots if plan.most_slices is None else min(slots, plan.most_slices))

    def _send(self, series: _Series, plan: SlicePlan, header: ImageHeader) -> None:
        key = series.key(plan)
        upload = self._client.early.growing(key)
        try:
            if upload is not None:
                upload.send(header.sop.sop_instance_uid, plan.pixels_of(header))
                log.debug("slice_sent_early", series_uid=series.series_uid, count=upload.count)
                return
        except EarlyUploadLost as reason:
            self._client.early.drop(key, str(reason))
        except (DecodingError, OSError):
            return  # as above
        series.begun.remove(plan)
        if not series.begun:
            series.is_over = True

    def _end(self, series: _Series, reason: str) -> None:
        for plan in series.begun:
            self._client.early.drop(series.key(plan), reason)
        series.end()
