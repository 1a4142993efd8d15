"""The heavy steps of a run on a real node: what `workflow` makes durable, in the words of `pipeline`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog
from sqlalchemy import Engine

from node import pipeline
from node.domain.evidence import EvidenceSet, Signature
from node.domain.instances import ImageHeader
from node.domain.prediction import ModelIdentity
from node.errors import Refusal
from node.index.instances import instances_of_generation
from node.index.predecessors import previous_report
from node.index.runs import ModelVersion, RunRequest
from node.inference_client.client import InferenceClient
from node.results import findings_builder, uids
from node.settings import ProcessingSettings
from node.store.outbox import Outbox
from node.workflow.steps import Selection
from protos.model_manifest import ModelBundle

log = structlog.get_logger()
MEGABYTE = 1 << 20
OnReading = Callable[[pipeline.Reading, EvidenceSet], None]
OnSelected = Callable[[str, tuple[str, str], str | None], None]
"""Study Instance UID, name and version of the model, Series Instance UID that it takes if any."""


@dataclass(frozen=True, slots=True)
class StudySteps:
    """Select, and make evidence. Each may run twice for the same run and comes to the same result."""

    engine: Engine
    outbox: Outbox
    client: InferenceClient
    bundles: Mapping[ModelVersion, ModelBundle]
    processing: ProcessingSettings
    on_reading: OnReading | None = None
    """Told of every reading that became evidence, before it is delivered."""
    on_selected: OnSelected | None = None
    """Told of what a model takes of a study, before the series is read."""

    def select(self, run: RunRequest) -> Selection:
        """Judge every series of the run's generation for its model."""
        images = self._images(run)
        for item in images.unreadable:
            log.warning("instance_not_read", study_uid=run.study_uid, series_uid=item.series_uid, reason=item.reason)
        selection = Selection(pipeline.select_series(self._bundle(run), images))
        if self.on_selected is not None:
            self.on_selected(run.study_uid, (run.model.name, run.model.version), selection.series_uid)
        return selection

    def make_evidence(self, run: RunRequest, series_uid: str) -> EvidenceSet:
        """Make the evidence of one series, or adopt what an earlier attempt made."""
        bundle = self._bundle(run)
        signature = self._signature(run)
        origin = uids.ResultOrigin(
            study_uid=run.study_uid,
            source_series_uid=series_uid,
            generation=run.generation,
            model=identity_of(bundle),
            settings_digest=run.settings_digest,
            profile=signature.profile,
        )
        key = uids.evidence_key(origin, findings_builder.writer_revision)
        present = self.outbox.find(key)
        if present is not None:
            return present
        headers = self._whole_series(run, series_uid)
        reading = self._read(bundle, headers)
        previous = previous_report(self.engine, uids.series_uid(origin, "SR"), other_than=key)
        evidence = pipeline.make_evidence(bundle, headers, reading, signature, self.outbox, previous=previous)
        if self.on_reading is not None:
            self.on_reading(reading, evidence)
        return evidence

    def _read(self, bundle: ModelBundle, headers: tuple[ImageHeader, ...]) -> pipeline.Reading:
        most = self.processing.max_volume_mb * MEGABYTE
        return pipeline.read_series(bundle, headers, self.client.infer, max_bytes=most, room=self.client.room)

    def _whole_series(self, run: RunRequest, series_uid: str) -> tuple[ImageHeader, ...]:
        """Read the headers of the series again; it must be what was received, image by image."""
        received = instances_of_generation(self.engine, run.study_uid, run.generation)
        wanted = {item.path: item.sop.sop_instance_uid for item in received if item.series_uid == series_uid}
        images = pipeline.read_study((path, series_uid) for path in wanted)
        if images.unreadable:
            first = images.unreadable[0]
            raise Refusal(f"SOP instance {wanted[first.path]} cannot be read: {first.reason}")
        headers = images.series.get(series_uid, ())
        odd = set(wanted.values()) ^ {header.sop.sop_instance_uid for header in headers}
        if odd or len(headers) != len(wanted):
            raise Refusal(
                f"the stored files of series {series_uid} are not the instances that were received: "
                f"{', '.join(sorted(odd)[:3])}. Remedy: `hilum reindex`, then send the study again."
            )
        return headers

    def _images(self, run: RunRequest) -> pipeline.StudyImages:
        received = instances_of_generation(self.engine, run.study_uid, run.generation)
        return pipeline.read_study((item.path, item.series_uid) for item in received)

    def _bundle(self, run: RunRequest) -> ModelBundle:
        try:
            return self.bundles[run.model]
        except KeyError:
            raise Refusal(
                f"model {run.model.name} {run.model.version} with digest {run.model.digest[:12]} is no longer "
                "installed. Remedy: install it again, or `hilum retry` the study with the models that are installed."
            ) from None

    def _signature(self, run: RunRequest) -> Signature:
        return Signature(
            study_uid=run.study_uid,
            generation=run.generation,
            decided_at=run.decided_at,
            settings_digest=run.settings_digest,
            institution_name=self.processing.institution_name,
            device_serial_number=self.processing.device_serial_number,
        )


def identity_of(bundle: ModelBundle) -> ModelIdentity:
    """Say who the algorithm of a bundle is, as far as a result's UIDs depend on it."""
    identity = bundle.manifest.identity
    return ModelIdentity(
        name=identity.name,
        version=identity.version,
        title=identity.title,
        manufacturer=identity.manufacturer,
        digest=bundle.digest,
        verified="digest",
    )


def version_of(bundle: ModelBundle) -> ModelVersion:
    """Name a bundle as the plan knows it."""
    return ModelVersion(bundle.manifest.identity.name, bundle.manifest.identity.version, bundle.digest)
