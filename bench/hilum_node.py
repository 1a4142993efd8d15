"""The node's own parts, connected as node/app.py and node/pipeline.py connect them, with a stopwatch between them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bench.stages import Stopwatch
from node.delivery.storage_scu import send_objects
from node.domain.evidence import EvidenceSet, Signature
from node.domain.instances import ImageHeader, ReceivedInstance
from node.domain.orientation import reorient
from node.domain.volume import Volume
from node.imaging.headers import read_headers
from node.imaging.volume_builder import build_volume
from node.index.engine import open_index
from node.inference_client.client import InferenceClient
from node.intake.listener import Listener
from node.pipeline import Reading
from node.results import evidence_writer
from node.results.evidence_writer import EvidenceRequest, write_evidence
from node.results.findings_builder import build_findings
from node.settings import Destination, InferenceSettings, ListenerSettings
from node.store.instance_files import InstanceStore
from node.store.outbox import Outbox
from protos.model_manifest import ModelBundle, ModelManifest

MANIFEST = ModelManifest.model_validate(
    {
        "schema_version": 1,
        "identity": {"name": "ready", "version": "1", "title": "Ready mask", "manufacturer": "Hilum bench"},
        "use": {"intended_use": "Benchmark.", "research_use": "Not for use on patients."},
        "accepts": {"modalities": ["CT"]},
        "inputs": [
            {"name": "image", "datatype": "INT16", "shape": [-1, -1, -1]},
            {"name": "slope", "datatype": "FP32", "shape": [-1]},
            {"name": "intercept", "datatype": "FP32", "shape": [-1]},
            {"name": "spacing", "datatype": "FP32", "shape": [3]},
        ],
        "outputs": [{"name": "probability", "datatype": "UINT8", "shape": [-1, -1, -1]}],
        "findings": [
            {
                "output": "probability",
                "threshold": 0.5,
                "label": "Nodule",
                "concept": {
                    "category": {"value": "49755003", "scheme": "SCT", "meaning": "Morphologically Abnormal Structure"},
                    "type": {"value": "27925004", "scheme": "SCT", "meaning": "Nodule"},
                    "site": {"value": "39607008", "scheme": "SCT", "meaning": "Lung"},
                },
            }
        ],
        "memory": {"base_mb": 1, "bytes_per_voxel": 1},
        "licence": "Apache-2.0",
    }
)
BUNDLE = ModelBundle(Path("ready"), MANIFEST, "0" * 64)
MOST_BYTES = 4 << 30


def receive(directory: Path, send: Callable[[int], None], watch: Stopwatch) -> list[ReceivedInstance]:
    """Listen while `send(port)` runs; every instance is durable and indexed before its answer."""
    received: list[ReceivedInstance] = []
    store = InstanceStore(directory / "store")
    engine = open_index(directory / "index.sqlite", store_directory=store.directory)
    listener = Listener(
        ListenerSettings(ae_title="NODE", port=0),
        store,
        engine,
        low_disk_bytes=0,
        on_stored=received.append,
        on_closed=lambda _: None,
    )
    _, port = listener.start()
    with watch.stage("receive"):
        send(port)
    listener.stop()
    engine.dispose()
    return received


def load(paths: list[Path]) -> tuple[tuple[ImageHeader, ...], Volume]:
    """Read headers and voxels."""
    headers = read_headers(paths)
    return headers, build_volume(headers, max_bytes=MOST_BYTES)


def read(volume: Volume, client: InferenceClient, watch: Stopwatch) -> Reading:
    """Take the volume through the service, and the answer to findings."""
    with watch.stage("gRPC there and mask back"):
        turned, way = reorient(volume, MANIFEST.accepts.axes, MANIFEST.accepts.max_oblique_deg)
        prediction = client.infer(BUNDLE, turned)
        outputs = {name: way.back(array) for name, array in prediction.outputs.items()}
    with watch.stage("findings"):
        findings = build_findings(MANIFEST, volume, outputs)
    return Reading(volume, prediction, findings)


def write(reading: Reading, headers: tuple[ImageHeader, ...], outbox: Outbox, watch: Stopwatch) -> EvidenceSet:
    """Write, check and publish the evidence; SEG and SR are timed inside the writer, the rest is checking."""
    signature = Signature(reading.volume.study_uid, "bench", datetime.now(UTC), "bench", "", "1")
    request = EvidenceRequest(BUNDLE, headers, reading.volume, reading.findings, reading.prediction.model, signature)
    inner = Stopwatch()
    with watch.stage("check and publish"), _timed_writers(inner):
        evidence = write_evidence(request, outbox)
    for stage, seconds in inner.seconds.items():
        watch.add(stage, seconds)
    watch.add("check and publish", -inner.total)
    return evidence


@contextmanager
def _timed_writers(watch: Stopwatch) -> Iterator[None]:
    def timed(stage: Callable[[tuple[Any, ...]], str], function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            with watch.stage(stage(arguments)):
                return function(*arguments)

        return call

    with ExitStack() as patches:
        for name, stage in (
            ("build_segmentation", lambda _: "SEG"),
            ("build_report", lambda _: "SR"),
            ("_written", lambda arguments: str(arguments[0])),
        ):
            function = getattr(evidence_writer, name)
            patches.enter_context(patch.object(evidence_writer, name, timed(stage, function)))
        yield


def client(port: int) -> InferenceClient:
    return InferenceClient(InferenceSettings(endpoint=f"127.0.0.1:{port}"))


def send(evidence: EvidenceSet, port: int) -> None:
    """Send the results to the PACS."""
    pacs = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=port)
    outcomes: list[str] = []
    items = [(item, evidence.directory / item.file_name) for item in evidence.objects]
    send_objects(pacs, "NODE", items, lambda result: outcomes.append(result.outcome))
    assert outcomes == ["SENT"] * len(items), outcomes
