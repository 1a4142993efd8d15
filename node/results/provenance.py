"""Who made a result: equipment, device UID, contributing equipment (IHE AIR), algorithm identification (TID 4019)."""

from highdicom import AlgorithmIdentificationSequence
from highdicom.sr import AlgorithmIdentification, DeviceObserverIdentifyingAttributes, ObserverContext
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes

from node.dimse.implementation import node_version
from node.results import concepts, uids
from node.results.coding import coded
from node.results.request import EvidenceRequest
from protos.model_manifest import ComponentFindings, LabelFindings


def set_equipment(dataset: Dataset, request: EvidenceRequest) -> None:
    """Set General and Enhanced General Equipment (PS3.3 C.7.5.1, C.7.5.2) and Contributing Equipment.

    The equipment is the model alone, because all instances of a series share it; the contribution names the node too.
    """
    _describe(dataset, request)
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = Sequence([coded(concepts.PROCESSING_EQUIPMENT)])
    _describe(item, request)
    item.SoftwareVersions = [model_version(request), f"hilum {node_version()}"]
    item.ContributionDescription = f"{request.manifest.identity.title}, bundle SHA-256 {request.model.digest}"
    dataset.ContributingEquipmentSequence = Sequence([item])


def model_version(request: EvidenceRequest) -> str:
    """Say the model's name and version."""
    return f"{request.model.name} {request.model.version}"


def algorithm_parameters(request: EvidenceRequest) -> list[str]:
    """Say what makes the algorithm repeatable: digest, whether the service proved it, and the rules of the findings."""
    rules = [_rule_text(rule) for rule in request.manifest.findings]
    return [f"bundle SHA-256 {request.model.digest} ({request.model.verified})", *rules]


def _rule_text(rule: ComponentFindings | LabelFindings) -> str:
    if isinstance(rule, LabelFindings):
        return f"classes of {rule.output}, at least {rule.min_volume_ml:g} mL"
    return (
        f"{rule.label}: {rule.output} * {rule.scale:g} >= {rule.threshold:g}, {rule.connectivity} neighbours"
        + (f", within {rule.within}" if rule.within else "")
        + f", at least {rule.min_voxels} voxels, {rule.min_volume_ml:g} mL, {rule.min_diameter_mm:g} mm, "
        + f"probability {rule.min_probability:g}, at most {rule.max_findings} findings"
    )


def segment_algorithm(request: EvidenceRequest) -> AlgorithmIdentificationSequence:
    """Return Segmentation Algorithm Identification Sequence (0062,0007)."""
    return AlgorithmIdentificationSequence(
        name=request.manifest.identity.title,
        version=request.model.version,
        family=coded(concepts.ARTIFICIAL_INTELLIGENCE),
    )


def group_algorithm(request: EvidenceRequest) -> AlgorithmIdentification:
    """Return the algorithm identification of a measurement group (TID 4019)."""
    return AlgorithmIdentification(
        name=request.manifest.identity.title,
        version=request.model.version,
        parameters=algorithm_parameters(request),
        family=coded(concepts.ARTIFICIAL_INTELLIGENCE),
        manufacturer=request.manifest.identity.manufacturer,
    )


def device_observer(request: EvidenceRequest) -> ObserverContext:
    """Return the device as observer (TID 1004)."""
    return ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=uids.device_uid(request.model.digest),
            name=request.manifest.identity.title,
            manufacturer_name=request.manifest.identity.manufacturer,
            model_name=request.model.name,
            serial_number=request.signature.device_serial_number,
        ),
    )


def _describe(dataset: Dataset, request: EvidenceRequest) -> None:
    dataset.Manufacturer = request.manifest.identity.manufacturer
    dataset.ManufacturerModelName = request.model.name
    dataset.DeviceSerialNumber = request.signature.device_serial_number
    dataset.SoftwareVersions = model_version(request)
    dataset.DeviceUID = uids.device_uid(request.model.digest)
    if request.signature.institution_name:
        dataset.InstitutionName = request.signature.institution_name
