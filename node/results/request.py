"""What the writers of results are given."""

from dataclasses import dataclass

from node.domain.evidence import PreviousReport, Signature
from node.domain.findings import Findings
from node.domain.instances import ImageHeader
from node.domain.prediction import ModelIdentity
from node.domain.volume import Volume
from node.results import findings_builder, uids
from node.results.uids import ResultOrigin
from protos.model_manifest import ModelBundle, ModelManifest


@dataclass(frozen=True, slots=True)
class EvidenceRequest:
    """One model's findings in one series, and who signs them."""

    bundle: ModelBundle
    headers: tuple[ImageHeader, ...]
    """The source series, in any order; a header for every source of `volume`."""
    volume: Volume
    findings: Findings
    model: ModelIdentity
    signature: Signature
    previous: PreviousReport | None = None
    """The SR of an earlier generation that this one corrects."""

    @property
    def manifest(self) -> ModelManifest:
        """The model's manifest."""
        return self.bundle.manifest

    @property
    def origin(self) -> ResultOrigin:
        """What every UID of this result derives from."""
        return ResultOrigin(
            study_uid=self.signature.study_uid,
            source_series_uid=self.volume.series_uid,
            generation=self.signature.generation,
            model=self.model,
            settings_digest=self.signature.settings_digest,
            profile=self.signature.profile,
        )

    @property
    def key(self) -> str:
        """The evidence key."""
        return uids.evidence_key(self.origin, findings_builder.writer_revision)

    @property
    def instance_number(self) -> int:
        """1, or one more than the instance that this one corrects."""
        return self.previous.instance_number + 1 if self.previous else 1
