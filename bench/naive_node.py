"""A straightforward node, as the tutorials of its libraries write it: what Hilum is held against.

pynetdicom receives (event.dataset, save_as); pydicom reads, applies the modality LUT and stacks float32; one unary
gRPC message carries the voxels; scipy labels; highdicom writes SEG and SR; pynetdicom sends (send_c_store).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import highdicom as hd
import numpy as np
from pydicom import Dataset, dcmread
from pydicom.pixels import apply_modality_lut
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Comprehensive3DSRStorage, SegmentationStorage
from scipy import ndimage

from bench.ready_service import OPTIONS
from bench.stages import Stopwatch
from protos import open_inference_pb2 as messages
from protos.open_inference_pb2_grpc import GRPCInferenceServiceStub

ALGORITHM = hd.AlgorithmIdentificationSequence(name="ready", version="1", family=codes.cid7162.ArtificialIntelligence)
EQUIPMENT: dict[str, Any] = {
    "manufacturer": "Example",
    "manufacturer_model_name": "Example",
    "software_versions": "1",
    "device_serial_number": "1",
}


def receive(directory: Path, send: Callable[[int], None], watch: Stopwatch) -> None:
    """Listen while `send(port)` runs, and save what comes."""
    directory.mkdir(parents=True)

    def store(event: evt.Event) -> int:
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        dataset.save_as(directory / f"{dataset.SOPInstanceUID}.dcm", enforce_file_format=True)
        return 0x0000

    ae = AE(ae_title="NODE")
    ae.supported_contexts = AllStoragePresentationContexts
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    with watch.stage("receive"):
        send(server.server_address[1])
    ae.shutdown()


def load(directory: Path) -> tuple[list[Dataset], np.ndarray]:
    """Return the images by position, and their values [slice, row, column] as float32."""
    images = [dcmread(path) for path in directory.glob("*.dcm")]
    images.sort(key=lambda image: float(image.ImagePositionPatient[2]))
    return images, np.stack([apply_modality_lut(image.pixel_array, image) for image in images]).astype(np.float32)


def infer(volume: np.ndarray, port: int) -> np.ndarray:
    """Send the values and return the mask."""
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS) as channel:
        request = messages.ModelInferRequest(model_name="ready", raw_input_contents=[volume.tobytes()])
        request.inputs.add(name="image", datatype="FP32", shape=volume.shape)
        response = GRPCInferenceServiceStub(channel).ModelInfer(request)
    return np.frombuffer(response.raw_output_contents[0], np.uint8).reshape(volume.shape)


def find(volume: np.ndarray, mask: np.ndarray, image: Dataset) -> tuple[np.ndarray, list[dict[str, float]]]:
    """Return the label volume, and volume (mL), diameter (mm) and mean of each component."""
    labels, _ = ndimage.label(mask > 127, np.ones((3, 3, 3)))
    spacing = (float(image.SpacingBetweenSlices), *map(float, image.PixelSpacing))
    findings = []
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        inside = labels[box] == number
        diameter = max((side.stop - side.start) * step for side, step in zip(box[1:], spacing[1:], strict=True))
        volume_ml = inside.sum() * np.prod(spacing) / 1000
        findings.append({"volume": volume_ml, "diameter": diameter, "mean": volume[box][inside].mean()})
    return labels.astype(np.uint8), findings


def write_segmentation(images: list[Dataset], labels: np.ndarray, count: int, path: Path) -> Dataset:
    """Write one segment per finding."""
    segments = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=f"Nodule {number}",
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Nodule,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=ALGORITHM,
        )
        for number in range(1, count + 1)
    ]
    segmentation = hd.seg.Segmentation(
        source_images=images,
        pixel_array=labels,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        series_instance_uid=generate_uid(),
        series_number=100,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        **EQUIPMENT,
    )
    segmentation.save_as(path)
    return segmentation


def write_report(images: list[Dataset], segmentation: Dataset, findings: list[dict[str, float]], path: Path) -> None:
    """Write a TID 1500 report with one group per finding."""
    source = hd.sr.SourceSeriesForSegmentation.from_source_image(images[0])
    groups = [
        hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=hd.sr.TrackingIdentifier(uid=generate_uid(), identifier=f"Nodule {number}"),
            referenced_segment=hd.sr.ReferencedSegment(
                sop_class_uid=segmentation.SOPClassUID,
                sop_instance_uid=segmentation.SOPInstanceUID,
                segment_number=number,
                source_series=source,
            ),
            finding_type=codes.SCT.Nodule,
            measurements=[
                hd.sr.Measurement(name=codes.SCT.Volume, value=float(item["volume"]), unit=codes.UCUM.CubicCentimeter),
                hd.sr.Measurement(name=codes.SCT.LongAxis, value=float(item["diameter"]), unit=codes.UCUM.Millimeter),
                hd.sr.Measurement(name=codes.SCT.Mean, value=float(item["mean"]), unit=codes.UCUM.HounsfieldUnit),
            ],
        )
        for number, item in enumerate(findings, 1)
    ]
    observer = hd.sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(uid=generate_uid()),
    )
    report = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
        imaging_measurements=groups,
    )
    hd.sr.Comprehensive3DSR(
        evidence=[*images, segmentation],
        content=report,
        series_instance_uid=generate_uid(),
        series_number=101,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="Example",
    ).save_as(path)


def send(paths: list[Path], port: int) -> None:
    """Send the results to the PACS."""
    ae = AE(ae_title="NODE")
    ae.add_requested_context(SegmentationStorage)
    ae.add_requested_context(Comprehensive3DSRStorage)
    association = ae.associate("127.0.0.1", port)
    assert association.is_established
    for path in paths:
        assert association.send_c_store(dcmread(path)).Status == 0x0000
    association.release()
