"""THE DATA PATH: instances -> series chosen -> volume -> tensors -> prediction -> findings -> evidence set.

Plain functions. `hilum run FOLDER` calls them directly, `workflow` wraps them in durability, intake feeds them,
delivery empties them. Every step may run twice; the evidence set is write-once.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from node.domain.evidence import EvidenceSet, PreviousReport, Signature
from node.domain.findings import Findings
from node.domain.instances import ImageHeader
from node.domain.orientation import reorient
from node.domain.prediction import Prediction
from node.domain.study import Verdict
from node.domain.volume import Volume
from node.errors import HilumError
from node.imaging.headers import read_header
from node.imaging.volume_builder import Room, build_volume, no_room
from node.results.evidence_writer import write_evidence
from node.results.findings_builder import build_findings
from node.results.request import EvidenceRequest
from node.routing.series_selection import judge
from node.store.outbox import Outbox
from protos.model_manifest import ModelBundle

Infer = Callable[[ModelBundle, Volume], Prediction]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file of a study whose header cannot be read, and why."""

    path: Path
    series_uid: str | None
    """The series it was received in; None for a file that was found in a folder."""
    reason: str


@dataclass(frozen=True, slots=True)
class StudyImages:
    """The readable images of a study by series, and what could not be read and why."""

    series: Mapping[str, tuple[ImageHeader, ...]]
    unreadable: tuple[Unreadable, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """What one model found in one series, before it becomes DICOM."""

    volume: Volume
    prediction: Prediction
    findings: Findings


def read_study(
    files: Iterable[tuple[Path, str | None]], *, unreadable_on: tuple[type[Exception], ...] = (HilumError,)
) -> StudyImages:
    """Read the headers of a study's files, given with the series they were received in.

    A file at which an error of `unreadable_on` arises is named with the reason; the others go on.

    Raises:
        OSError: the machine cannot read a file now; that says nothing of the file. A folder that somebody names is
            read with OSError among `unreadable_on`.
    """
    series: dict[str, list[ImageHeader]] = {}
    unreadable: list[Unreadable] = []
    for path, series_uid in files:
        try:
            header = read_header(path)
        except unreadable_on as error:
            unreadable.append(Unreadable(path, series_uid, str(error)))
        else:
            series.setdefault(header.series_uid, []).append(header)
    return StudyImages({uid: tuple(headers) for uid, headers in series.items()}, tuple(unreadable))


def select_series(bundle: ModelBundle, images: StudyImages) -> tuple[Verdict, ...]:
    """Judge every series for one model: at most one is taken, and every one has its reason.

    A series of which an instance cannot be read is not taken: a result must not rest on an unknown part of it.
    """
    broken = {item.series_uid: item.reason for item in images.unreadable if item.series_uid}
    whole = {uid: headers for uid, headers in images.series.items() if uid not in broken}
    identity = bundle.manifest.identity
    refused = tuple(
        Verdict(identity.name, identity.version, uid, taken=False, reason=f"an instance cannot be read: {reason}")
        for uid, reason in sorted(broken.items())
    )
    return (*judge(bundle.manifest, whole), *refused)


def read_series(
    bundle: ModelBundle, headers: Iterable[ImageHeader], infer: Infer, *, max_bytes: int, room: Room = no_room
) -> Reading:
    """Take one series through the model; `room` may give memory of the service for the volume.

    Raises:
        GeometryRefusal, Refusal, DecodingError: the series does not make a volume the model takes.
        InferenceUnavailable: the service is away or busy; try again.
        InferenceRejected: the request or the answer is wrong.
    """
    accepts = bundle.manifest.accepts
    volume = build_volume(tuple(headers), max_bytes=max_bytes, room=room)
    turned, reorientation = reorient(volume, accepts.axes, accepts.max_oblique_deg)
    answer = infer(bundle, turned)
    grid = turned.geometry.shape
    on_source = {
        name: reorientation.back(array) if array.shape[:3] == grid else array for name, array in answer.outputs.items()
    }
    prediction = replace(answer, outputs=on_source)
    return Reading(volume, prediction, build_findings(bundle.manifest, volume, on_source))


def make_evidence(
    bundle: ModelBundle,
    headers: tuple[ImageHeader, ...],
    reading: Reading,
    signature: Signature,
    outbox: Outbox,
    *,
    previous: PreviousReport | None = None,
) -> EvidenceSet:
    """Turn a reading into a linted, durable, write-once evidence set; an existing set of the same key is adopted.

    Raises:
        EvidenceRejected: our own linter refuses the objects; they are quarantined with the reason.
    """
    return write_evidence(
        EvidenceRequest(
            bundle=bundle,
            headers=headers,
            volume=reading.volume,
            findings=reading.findings,
            model=reading.prediction.model,
            signature=signature,
            previous=previous,
        ),
        outbox,
    )
