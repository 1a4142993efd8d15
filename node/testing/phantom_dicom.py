"""The phantom's slices as CT Image instances (PS3.3 A.3): synthetic identity, every type 1 and 2 attribute."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from node.testing.phantom_plan import RESCALE_INTERCEPT, PhantomPlan

_DATE, _TIME = "20250101", "120000"
_PATIENT: dict[str, object] = {
    "PatientName": "PHANTOM^CHEST",
    "PatientBirthDate": "",
    "PatientSex": "O",
    "PatientComments": "Computed phantom; no living person",
}
_STUDY: dict[str, object] = {
    "StudyDate": _DATE,
    "StudyTime": _TIME,
    "ReferringPhysicianName": "",
    "StudyDescription": "CT chest phantom",
    "AccessionNumber": "",
}
_SERIES: dict[str, object] = {
    "Modality": "CT",
    "SeriesNumber": 2,
    "SeriesDate": _DATE,
    "SeriesTime": _TIME,
    "SeriesDescription": "Chest axial",
    "ProtocolName": "Chest without contrast",
    "BodyPartExamined": "CHEST",
    "PatientPosition": "HFS",
    "PositionReferenceIndicator": "",
}
_EQUIPMENT: dict[str, object] = {
    "Manufacturer": "Hilum",
    "ManufacturerModelName": "Chest phantom",
    "InstitutionName": "Phantom Hospital",
    "DeviceSerialNumber": "0",
    "SoftwareVersions": "1",
}
_IMAGE: dict[str, object] = {
    "SpecificCharacterSet": "ISO_IR 192",
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    "SOPClassUID": CTImageStorage,
    "AcquisitionNumber": 1,
    "AcquisitionDate": _DATE,
    "AcquisitionTime": _TIME,
    "ContentDate": _DATE,
    "ContentTime": _TIME,
    "KVP": "120",
    "XRayTubeCurrent": 200,
    "ExposureTime": 500,
    "ConvolutionKernel": "SOFT",
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "BitsAllocated": 16,
    "BitsStored": 16,
    "HighBit": 15,
    "PixelRepresentation": 1,
    "RescaleSlope": "1",
    "RescaleIntercept": f"{RESCALE_INTERCEPT:g}",
    "RescaleType": "HU",
    "WindowCenter": ["40", "-600"],
    "WindowWidth": ["400", "1600"],
    "WindowCenterWidthExplanation": ["MEDIASTINUM", "LUNG"],
}


class PhantomFiles:
    """Writes the slices of one plan into a directory."""

    def __init__(self, plan: PhantomPlan, directory: Path) -> None:
        """Prepare what all slices share."""
        self._plan = plan
        self._directory = directory
        self._shared = _shared_attributes(plan)

    def write(self, index: int, stored: NDArray[np.int16]) -> Path:
        """Write slice `index` (0 at the feet) of stored values [row, column]; return its file."""
        plan, instance = self._plan, self._shared
        x, y, z = plan.geometry.origin
        height = z + index * plan.spacing
        instance.InstanceNumber = plan.slices - index
        instance.SOPInstanceUID = plan.uid(f"instance {instance.InstanceNumber}")
        instance.ImagePositionPatient = [_decimal(x), _decimal(y), _decimal(height)]
        instance.SliceLocation = _decimal(height)
        instance.PixelData = stored.astype("<i2", copy=False).tobytes()
        instance.file_meta = FileMetaDataset()
        instance.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = self._directory / f"CT{instance.InstanceNumber:04d}.dcm"
        instance.save_as(path, enforce_file_format=True)
        return path


def _shared_attributes(plan: PhantomPlan) -> Dataset:
    shared = Dataset()
    for keyword, value in (_PATIENT | _STUDY | _SERIES | _EQUIPMENT | _IMAGE).items():
        setattr(shared, keyword, value)
    _, row_spacing, column_spacing = plan.geometry.spacing
    shared.PatientID = f"PHANTOM-{plan.seed:04d}"
    shared.StudyID = str(plan.seed)
    shared.StudyInstanceUID = plan.uid("study")
    shared.SeriesInstanceUID = plan.uid("series")
    shared.FrameOfReferenceUID = plan.uid("frame of reference")
    shared.Rows = shared.Columns = plan.size
    shared.PixelSpacing = [_decimal(row_spacing), _decimal(column_spacing)]
    shared.SliceThickness = _decimal(plan.spacing)
    shared.SpacingBetweenSlices = _decimal(plan.spacing)
    shared.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    return shared


def _decimal(value: float) -> str:
    """Return a decimal string (VR DS) of at most 16 characters."""
    return f"{value:.6f}".rstrip("0").rstrip(".")
