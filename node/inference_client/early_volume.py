"""A finished volume and what was sent of it early: which upload is its own, and whether it holds just that."""

import time

import structlog

from node.domain.volume import Volume
from node.inference_client.early_upload import EarlyUpload, EarlyUploadLost
from node.inference_client.early_uploads import UploadKey, note_drop
from node.inference_client.region_pool import LeasedRegion
from node.inference_client.requests import image_of, stored_voxels
from protos.model_manifest import ModelManifest

_log = structlog.get_logger(__name__)


def key_of(manifest: ModelManifest, volume: Volume) -> UploadKey:
    """Name the upload that a volume in the manifest's axes would have; InferenceRejected where it takes no image."""
    return UploadKey(volume.study_uid, volume.series_uid, manifest.accepts.axes, image_of(manifest).datatype)


def completed(early: EarlyUpload, manifest: ModelManifest, volume: Volume, *, timeout_s: float) -> LeasedRegion | None:
    """Send what is missing of the volume and have the service prove the rest; give the region that holds it then.

    None where it does not: the volume is then uploaded whole.

    Raises:
        InferenceRejected: the volume's values do not fit the model.
    """
    begun = time.monotonic()
    voxels = stored_voxels(manifest, volume)
    instances = [source.sop_instance_uid for source in volume.sources]
    try:
        region, late = early.complete(instances, voxels, timeout_s=timeout_s)
    except EarlyUploadLost as reason:
        note_drop(key_of(manifest, volume), early, str(reason))
        early.abandon()
        return None
    _log.info(
        "volume_uploaded_early",
        study_uid=volume.study_uid,
        series_uid=volume.series_uid,
        count=len(voxels),
        bytes_early=voxels.nbytes - late,
        bytes_late=late,
        seconds=round(time.monotonic() - begun, 3),
    )
    return region
