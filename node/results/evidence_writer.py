"""From a request to a linted, durable, write-once evidence set."""

import time
from pathlib import Path

import numpy as np
import structlog
from highdicom.sr import GraphicTypeValues, ImageRegion, SourceImageForRegion
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

from node.domain.evidence import EvidenceKind, EvidenceObject, EvidenceSet
from node.domain.instances import SopReference
from node.errors import EvidenceRejected, OutOfResources
from node.results import uids
from node.results.linter import lint
from node.results.request import EvidenceRequest
from node.results.segmentation import build_segmentation
from node.results.source_series import SourceSeries, source_series
from node.results.structured_report import build_report
from node.store.outbox import Outbox, file_digest

__all__ = ["EvidenceRequest", "warm_up", "write_evidence", "write_objects"]
_log = structlog.get_logger()


def write_evidence(request: EvidenceRequest, outbox: Outbox) -> EvidenceSet:
    """Build SEG (where there are findings) and SR, check them, and publish the set; adopt one of the same key.

    Raises:
        EvidenceRejected: The linter refuses the objects; they lie in quarantine with the reasons.
        Refusal: The source lacks what a result must refer to.
        OutOfResources: The set cannot be made durable.
    """
    existing = outbox.find(request.key)
    if existing is not None:
        return existing
    started = time.perf_counter()
    work = outbox.work_directory()
    try:
        published = _publish(request, outbox, work)
    finally:
        outbox.drop(work)  # gone already where it was published or quarantined
    _log.info(
        "evidence_written",
        evidence_key=request.key,
        study_uid=request.signature.study_uid,
        count=len(published.objects),
        seconds=round(time.perf_counter() - started, 3),
    )
    return published


def _publish(request: EvidenceRequest, outbox: Outbox, work: Path) -> EvidenceSet:
    source = source_series(request.volume, request.headers)
    objects = write_objects(request, source, work)
    _check(request, source, work, objects, outbox)
    evidence = EvidenceSet(
        key=request.key,
        directory=work,
        study_uid=request.signature.study_uid,
        generation=request.signature.generation,
        profile=request.signature.profile,
        objects=objects,
        made_at=request.signature.decided_at,
    )
    return outbox.adopt_or_publish(work, evidence)


def _check(
    request: EvidenceRequest, source: SourceSeries, work: Path, objects: tuple[EvidenceObject, ...], outbox: Outbox
) -> None:
    """Quarantine the set and raise EvidenceRejected where a rule of severity error is broken."""
    own_segments = sum(item.per_instance for item in request.findings.items)
    violations = lint([work / item.file_name for item in objects], source, own_segments=own_segments)
    for violation in violations:
        _log.info("evidence_linted", evidence_key=request.key, reason=str(violation))
    errors = tuple(str(violation) for violation in violations if violation.severity == "error")
    if errors:
        place = outbox.quarantine(work, request.key, errors)
        raise EvidenceRejected(
            f"the evidence {request.key} breaks {len(errors)} rule(s) and lies in {place}: {' | '.join(errors)}. "
            f"Remedy: report this; nothing was sent."
        )


def write_objects(request: EvidenceRequest, source: SourceSeries, directory: Path) -> tuple[EvidenceObject, ...]:
    """Build the objects of a request and write them into a directory; equal requests give equal bytes."""
    objects: list[EvidenceObject] = []
    segmentation: SopReference | None = None
    if request.findings.items:
        objects.append(_written("SEG", build_segmentation(request, source), directory))
        segmentation = objects[-1].sop
    objects.append(_written("SR", build_report(request, source, segmentation), directory))
    return tuple(objects)


def _written(kind: EvidenceKind, dataset: Dataset, directory: Path) -> EvidenceObject:
    path = directory / f"{kind.lower()}-1.dcm"
    try:
        dataset.save_as(path, enforce_file_format=True)
    except OSError as error:
        raise OutOfResources(
            f"{path.name} cannot be written: {error.strerror}. Remedy: free space on the disk."
        ) from error
    return EvidenceObject(
        kind=kind,
        sop=SopReference(str(dataset.SOPClassUID), str(dataset.SOPInstanceUID)),
        series_uid=str(dataset.SeriesInstanceUID),
        transfer_syntax=str(dataset.file_meta.TransferSyntaxUID),
        file_name=path.name,
        file_digest=file_digest(path),
    )


def warm_up() -> None:
    """Load the tables of highdicom and the codes of pydicom, which first use would load at the cost of 0.3 s."""
    image = SourceImageForRegion(CTImageStorage, uids.derived_uid("warm up"))
    ImageRegion(GraphicTypeValues.POINT, np.zeros((1, 2)), image)
