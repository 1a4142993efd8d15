"""One attempt to deliver a set: what is pending goes out, and each object's answer is recorded as it comes."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import structlog
from sqlalchemy import Engine

from node.delivery.answers import SendResult
from node.delivery.retry_schedule import wait_s
from node.delivery.storage_scu import send_objects
from node.domain.evidence import EvidenceObject
from node.index.deliveries import Attempt, PendingSet, pending_set, record_attempt
from node.settings import Destination
from node.workflow.steps import DeliveryRecord

Send = Callable[
    [Destination, str, Sequence[tuple[EvidenceObject, Path]], Callable[[SendResult], None]],
    None,
]
EVENT_OF_OUTCOME = {"SENT": "evidence_delivered", "DELAYED": "delivery_delayed", "REFUSED": "delivery_refused"}
NOTHING_LEFT = DeliveryRecord(sent=0, refused=0, delayed=0, answered=False, wait_s=None)

log = structlog.get_logger()


class Courier:
    """Delivers evidence sets from the outbox to destinations; its `deliver_once` is the workflow's step."""

    def __init__(
        self,
        engine: Engine,
        outbox_directory: Path,
        destinations: Sequence[Destination],
        calling_ae_title: str,
        *,
        send: Send = send_objects,
    ) -> None:
        """Keep the parts.

        Args:
            engine: the index.
            outbox_directory: where the sets lie.
            destinations: the peers, by name.
            calling_ae_title: our title where a destination names none.
            send: sends objects and tells of each outcome; C-STORE.
        """
        self._engine = engine
        self._outbox = outbox_directory
        self._destinations = {item.name: item for item in destinations}
        self._calling_ae_title = calling_ae_title
        self._send = send
        # Jitter, not cryptography.
        self._random = Random()  # noqa: S311

    def deliver_once(self, evidence_key: str, destination_name: str) -> DeliveryRecord:
        """Try once to deliver what is pending of a set, and record each object's outcome.

        A destination that is no longer in the settings, or that kept the set waiting longer than it may, ends REFUSED.
        """
        pending = pending_set(self._engine, evidence_key, destination_name)
        if pending is None:
            return NOTHING_LEFT
        destination = self._destinations.get(destination_name)
        if destination is None:
            return self._refuse_all(pending, destination_name)
        return self._attempt(pending, destination)

    def _attempt(self, pending: PendingSet, destination: Destination) -> DeliveryRecord:
        results: list[SendResult] = []
        first, most = destination.retry_first_s, destination.retry_most_s
        wait = wait_s(pending.attempts + 1, first_s=first, most_s=most, random=self._random)
        objects = [(item, self._outbox / path) for item, path in pending.objects]

        def record(result: SendResult) -> None:
            kept = _or_given_up(result, pending, destination)
            results.append(kept)
            self._record(pending.study_uid, destination.name, kept, wait)

        calling = destination.calling_ae_title or self._calling_ae_title
        self._send(destination, calling, objects, record)
        counts = {
            outcome: sum(item.outcome == outcome for item in results) for outcome in ("SENT", "REFUSED", "DELAYED")
        }
        return DeliveryRecord(
            sent=counts["SENT"],
            refused=counts["REFUSED"],
            delayed=counts["DELAYED"],
            answered=any(item.status is not None for item in results),
            wait_s=round(wait, 3) if counts["DELAYED"] else None,
        )

    def _refuse_all(self, pending: PendingSet, destination_name: str) -> DeliveryRecord:
        text = f"no destination {destination_name!r} in the settings any more; add it again, then retry"
        for item, _path in pending.objects:
            result = SendResult(item.sop.sop_instance_uid, "REFUSED", None, text)
            self._record(pending.study_uid, destination_name, result, 0.0)
        return DeliveryRecord(sent=0, refused=len(pending.objects), delayed=0, answered=False, wait_s=None)

    def _record(self, study_uid: str, destination: str, result: SendResult, wait: float) -> None:
        now = datetime.now(UTC)
        delayed = result.outcome == "DELAYED"
        attempt = Attempt(
            sop_instance_uid=result.sop_instance_uid,
            destination=destination,
            state="PENDING" if result.outcome == "DELAYED" else result.outcome,
            status=result.status,
            comment=result.full_comment,
            next_attempt_at=now + timedelta(seconds=wait) if delayed else None,
        )
        record_attempt(self._engine, study_uid, attempt, now=now)
        tell = log.info if result.outcome == "SENT" else log.warning
        tell(
            EVENT_OF_OUTCOME[result.outcome],
            study_uid=study_uid,
            sop_instance_uid=result.sop_instance_uid,
            destination=destination,
            reason=result.comment,
        )


def given_up(pending: PendingSet, destination: Destination, last: str) -> str | None:
    """Say that a set waited longer than its destination may let it, and what was said last; None where it did not."""
    waited = datetime.now(UTC) - pending.waiting_since
    if waited < timedelta(seconds=destination.give_up_after_s):
        return None
    return f"given up after {waited / timedelta(hours=1):.1f} h; hilum retry tries again. Last: {last}"


def _or_given_up(result: SendResult, pending: PendingSet, destination: Destination) -> SendResult:
    text = given_up(pending, destination, result.comment) if result.outcome == "DELAYED" else None
    return result if text is None else replace(result, outcome="REFUSED", comment=text)
