"""The data path on a folder of files: no listener, no workflow, no PACS; the same functions, the same results."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pydicom

from node import pipeline
from node.domain.derived import is_derived
from node.domain.evidence import EvidenceSet, Signature
from node.domain.findings import Findings
from node.domain.instances import ImageHeader
from node.domain.study import Verdict, generation_of_digests
from node.errors import HilumError, Refusal
from node.imaging.explicit_scan import Unscannable, scan_meta
from node.inference_client.client import InferenceClient
from node.inference_client.service import ServiceProcess
from node.models import models_directory, open_bundles
from node.results.evidence_writer import warm_up
from node.results.report_text import sr_as_text
from node.settings import InferenceSettings, Settings
from node.store.outbox import Outbox
from node.testing.contact_sheet import write_contact_sheet
from protos.model_manifest import ModelBundle

OnStep = Callable[[str], None]
MEGABYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one model came to in one study."""

    title: str
    verdicts: tuple[Verdict, ...]
    findings: Findings | None = None
    evidence: EvidenceSet | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Study:
    ordinal: int
    study_uid: str
    images: pipeline.StudyImages
    generation: str


class OfflineRun:
    """Takes every study under a folder through every model; results lie under `out`."""

    def __init__(self, settings: Settings, out: Path, *, start_service: bool) -> None:
        """Open the models; the service is started when the first series is taken."""
        self._settings = settings
        self._out = out
        self._start_service = start_service
        self._bundles = open_bundles(settings.inference)
        self.damaged: tuple[pipeline.Unreadable, ...] = ()
        """Files of the folder that are DICOM and cannot be read; the series beside them are not taken."""
        self.foreign = 0
        """Files of the folder that are no DICOM."""

    def over(self, folder: Path, on_step: OnStep) -> list[Outcome]:
        """Run all models on all studies of `folder`; `on_step` is told what is being done.

        Raises:
            Refusal: the folder holds no DICOM image.
            SettingsError, InferenceUnavailable: the service cannot be used.
        """
        on_step(f"reading {folder}")
        # pydicom's warnings quote values, and values may be a patient's.
        pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
        files = ((path, None) for path in sorted(folder.rglob("*")) if path.is_file())
        images = pipeline.read_study(files, unreadable_on=(HilumError, OSError))
        self.damaged = _damaged(images)
        self.foreign = len(images.unreadable) - sum(_is_dicom(item.path) for item in images.unreadable)
        studies = list(_studies(images, self.damaged))
        if not studies:
            raise Refusal(
                f"{folder} holds no readable DICOM image with a Study Instance UID "
                f"({self.foreign} other files, {len(self.damaged)} damaged). Remedy: name the folder of the study."
            )
        self._out.mkdir(parents=True, exist_ok=True)
        outbox = Outbox(self._out / "evidence")
        warm_up()
        with TemporaryDirectory(prefix="hilum-") as scratch:
            on_step("starting the inference service")
            service, settings = self._service(Path(scratch))
            client = InferenceClient(settings)
            try:
                return [
                    self._one(study, bundle, client, outbox, on_step) for study in studies for bundle in self._bundles
                ]
            finally:
                client.close()
                if service is not None:
                    service.stop()

    def _service(self, scratch: Path) -> tuple[ServiceProcess | None, InferenceSettings]:
        settings = self._settings.inference
        if not self._start_service:
            return None, settings
        service = ServiceProcess(settings, models_directory(settings), scratch, log_level="warning")
        return service, settings.with_started(service.start())

    def _one(
        self, study: _Study, bundle: ModelBundle, client: InferenceClient, outbox: Outbox, on_step: OnStep
    ) -> Outcome:
        identity = bundle.manifest.identity
        title = f"study {study.study_uid}, {identity.name} {identity.version}"
        verdicts = pipeline.select_series(bundle, study.images)
        taken = next((item.series_uid for item in verdicts if item.taken), None)
        if taken is None:
            return Outcome(title, verdicts)
        headers = study.images.series[taken]
        on_step(f"{identity.name}: {len(headers)} images of series {taken}")
        most = self._settings.processing.max_volume_mb * MEGABYTE
        try:
            reading = pipeline.read_series(bundle, headers, client.infer, max_bytes=most, room=client.room)
            on_step(f"{identity.name}: writing {len(reading.findings.items)} finding(s)")
            evidence = pipeline.make_evidence(bundle, headers, reading, self._signature(study), outbox)
        except HilumError as error:
            return Outcome(title, verdicts, notes=(f"no result: {error}",))
        stem = f"{identity.name}-{identity.version}-{evidence.key[:8]}"
        return Outcome(title, verdicts, reading.findings, evidence, self._written(stem, reading, evidence))

    def _written(self, stem: str, reading: pipeline.Reading, evidence: EvidenceSet) -> tuple[str, ...]:
        sheet, report = self._out / f"{stem}.png", self._out / f"{stem}.txt"
        write_contact_sheet(reading.volume, reading.findings, sheet)
        files = {item.kind: evidence.directory / item.file_name for item in evidence.objects}
        report.write_text(sr_as_text(files["SR"]), encoding="utf-8")
        return (*(f"{kind}: {path}" for kind, path in files.items()), f"report: {report}", f"picture: {sheet}")

    def _decided_at(self, study: _Study) -> datetime:
        """Return the time of the first run of these images into `out`; it is part of the UIDs of an offline result.

        Another folder gives other instances, so that equal UIDs never stand over different content times.
        """
        record = self._out / "evidence" / f"decided-{study.generation[:16]}"
        if not record.exists():
            record.write_text(datetime.now(UTC).replace(microsecond=0).isoformat(), encoding="utf-8")
        return datetime.fromisoformat(record.read_text(encoding="utf-8"))

    def _signature(self, study: _Study) -> Signature:
        processing = self._settings.processing
        decided_at = self._decided_at(study)
        return Signature(
            study_uid=study.study_uid,
            generation=study.generation,
            decided_at=decided_at,
            settings_digest=hashlib.sha256(
                f"{self._settings.result_digest}\noffline {decided_at}".encode()
            ).hexdigest(),
            institution_name=processing.institution_name,
            device_serial_number=processing.device_serial_number,
        )


def _studies(images: pipeline.StudyImages, damaged: Sequence[pipeline.Unreadable]) -> Iterator[_Study]:
    by_study: dict[str, dict[str, tuple[ImageHeader, ...]]] = {}
    for series_uid, headers in images.series.items():
        for header in headers:
            if header.study_uid:
                series = by_study.setdefault(header.study_uid, {})
                series[series_uid] = (*series.get(series_uid, ()), header)
    for ordinal, (study_uid, series) in enumerate(sorted(by_study.items()), start=1):
        digests = {
            header.sop.sop_instance_uid: _data_set_digest(header.path)
            for headers in series.values()
            for header in headers
            if not is_derived(header.sop.sop_class_uid, header.modality)
        }
        whole = pipeline.StudyImages(series, tuple(_beside(series, damaged)))
        yield _Study(ordinal, study_uid, whole, generation_of_digests(digests))


def _beside(
    series: Mapping[str, Sequence[ImageHeader]], damaged: Sequence[pipeline.Unreadable]
) -> Iterator[pipeline.Unreadable]:
    """Yield each damaged file once for every series that lies in its folder: it may be a slice of any of them."""
    for item in damaged:
        for series_uid, headers in series.items():
            if any(header.path.parent == item.path.parent for header in headers):
                yield replace(item, series_uid=series_uid, reason=f"{item.path.name}: {item.reason}")


def _damaged(images: pipeline.StudyImages) -> tuple[pipeline.Unreadable, ...]:
    """Return the files that are DICOM and cannot be read, and those that state no study."""
    torn = [item for item in images.unreadable if _is_dicom(item.path)]
    nameless = [
        pipeline.Unreadable(header.path, None, "Study Instance UID (0020,000D) is empty or missing")
        for headers in images.series.values()
        for header in headers
        if not header.study_uid
    ]
    return (*torn, *nameless)


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:  # it may be one: nobody can tell
        return True


def _data_set_digest(path: Path) -> str:
    """Return what intake would record: SHA-256 of the data set without file meta, so that results get the same UIDs."""
    with path.open("rb") as file:
        try:
            file.seek(scan_meta(file.fileno()).position)
        except Unscannable:
            file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()
