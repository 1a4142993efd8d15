"""The demonstration: service, node and stand-in PACS on loopback, one study sent, what came back shown."""

import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import numpy as np

from node.app import Node
from node.domain.evidence import EvidenceSet
from node.domain.findings import Finding
from node.errors import HilumError, SettingsError
from node.index.engine import open_index
from node.index.history import StudyHistory, history_of, study_lines
from node.pipeline import Reading
from node.results.report_text import sr_as_text
from node.settings import (
    CompletionSettings,
    InferenceSettings,
    ListenerSettings,
    LogSettings,
    Settings,
    StoreSettings,
)
from node.state_directory import StateDirectory
from node.testing.contact_sheet import write_contact_sheet
from node.testing.modality import Modality, SendReport
from node.testing.pacs import StandInPacs, StoredObject
from node.testing.phantom import PhantomTruth, write_phantom

COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
PATIENCE_S = 600.0
MARKER = ".hilum-demo"
_POLL_S = 0.1
OnStep = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Shown:
    """What the demonstration has to show."""

    sent: SendReport
    histories: tuple[StudyHistory, ...]
    reports: tuple[Path, ...]
    """SR files that the stand-in PACS received."""
    results: tuple[Path, ...]
    """All files that it received."""
    sheets: tuple[Path, ...]
    readings: tuple[Reading, ...]
    truth: PhantomTruth | None
    seconds: dict[str, float]

    def report_texts(self) -> list[str]:
        """Return every SR as text."""
        return [sr_as_text(path) for path in self.reports]


class Demonstration:
    """One demonstration in one directory, which it owns: what an earlier one left there is removed."""

    def __init__(
        self,
        directory: Path,
        inference: InferenceSettings,
        *,
        folder: Path | None,
        slices: int,
        on_step: OnStep,
    ) -> None:
        """Name what is to be shown; nothing starts yet.

        Args:
            directory: takes the node's state, the stand-in PACS, the phantom and the pictures.
            inference: which models run; the service is started on a free port.
            folder: DICOM files to send; None sends the phantom.
            slices: slices of the phantom.
            on_step: told what is being done.
        """
        self._directory, self._folder, self._slices = directory, folder, slices
        self._inference = inference.model_copy(update={"endpoint": "127.0.0.1:0"})
        self._on_step = on_step
        self._readings: list[Reading] = []
        self._sheets: list[Path] = []
        self._seconds: dict[str, float] = {}

    def run(self) -> Shown:
        """Run to the end of all work; an interrupt stops the parts in order.

        Raises:
            HilumError: a part does not start, or the work does not end in time; the message says which.
        """
        if self._folder is not None and not any(path.is_file() for path in self._folder.rglob("*")):
            raise HilumError(f"{self._folder} holds no file. Remedy: name a folder of a study.")
        self._take_directory()
        with ExitStack() as parts, ThreadPoolExecutor(1) as painter:
            phantom = painter.submit(self._phantom) if self._folder is None else None
            self._on_step("starting the stand-in PACS, the inference service and the node")
            pacs = parts.enter_context(StandInPacs(self._directory / "pacs"))
            began = time.monotonic()
            node = Node(self._settings(pacs), start_service=True, on_reading=self._keep)
            parts.callback(node.stop)
            host, port = node.start()
            self._took("start", began)
            truth = phantom.result() if phantom else None
            sent = self._send(truth.files[0].parent if truth else self._folder, host, port)
            began = time.monotonic()
            self._await_end(node)
            self._took("readiness, model, results, delivery", began)
            received = pacs.objects
        return self._shown(sent, truth, received)

    def _take_directory(self) -> None:
        """Empty the directory of what an earlier demonstration left; anybody else's directory is left alone."""
        marker = self._directory / MARKER
        if self._directory.exists() and any(self._directory.iterdir()) and not marker.exists():
            raise SettingsError(
                f"--keep {self._directory}: holds files of others. Remedy: name an empty or new folder."
            )
        if StateDirectory(self._directory / "state").is_held():
            raise SettingsError(
                f"--keep {self._directory}: another demonstration runs there. Remedy: name another one."
            )
        for name in ("state", "pacs", "pictures"):
            shutil.rmtree(self._directory / name, ignore_errors=True)
        self._directory.mkdir(parents=True, exist_ok=True)
        marker.write_text("Made by `hilum demo`, which empties this folder when it runs again.\n", encoding="utf-8")

    def _settings(self, pacs: StandInPacs) -> Settings:
        return Settings(
            listener=ListenerSettings(port=0),
            store=StoreSettings(state_directory=self._directory / "state", low_disk_bytes=256 << 20),
            completion=CompletionSettings(settle_s=1.0),
            inference=self._inference,
            log=LogSettings(level="warning"),
            destinations=(pacs.destination(),),
        )

    def _phantom(self) -> PhantomTruth:
        began = time.monotonic()
        target = self._directory / "phantom"
        shutil.rmtree(target, ignore_errors=True)
        truth = write_phantom(target, slices=self._slices)
        self._took("painting the phantom", began)
        return truth

    def _send(self, folder: Path | None, host: str, port: int) -> SendReport:
        if folder is None:
            raise HilumError("nothing to send: neither a folder nor a phantom")
        self._on_step(f"sending {folder} by C-STORE")
        report = Modality("HILUM", host, port, calling_ae_title="DEMO").send(folder)
        self._seconds["C-STORE"] = report.seconds
        if not report.of("SENT"):
            told = next((f": {item.reason}" for item in report.of("FAILED")), "")
            raise HilumError(
                f"{folder} holds no DICOM file that the node took{told}. Remedy: name a folder of a study."
            )
        return report

    def _await_end(self, node: Node) -> None:
        deadline = time.monotonic() + PATIENCE_S
        self._on_step("waiting for the results: series chosen, model asked, SEG and SR written, linted, delivered")
        pause = Event()
        while node.workflow is not None and not node.workflow.idle():
            if time.monotonic() > deadline:
                raise HilumError(f"the results did not come within {PATIENCE_S:g} s; see {self._directory / 'state'}")
            pause.wait(_POLL_S)

    def _keep(self, reading: Reading, evidence: EvidenceSet) -> None:
        sheet = self._directory / "pictures" / f"{evidence.key[:12]}.png"
        sheet.parent.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        write_contact_sheet(reading.volume, reading.findings, sheet)
        self._took("contact sheet (part of the line above it)", began)
        self._readings.append(reading)
        self._sheets.append(sheet)

    def _took(self, what: str, began: float) -> None:
        self._seconds[what] = time.monotonic() - began

    def _shown(self, sent: SendReport, truth: PhantomTruth | None, received: tuple[StoredObject, ...]) -> Shown:
        state = StateDirectory(self._directory / "state")
        engine = open_index(state.index, store_directory=state.store)
        histories = tuple(history_of(engine, line.study_uid) for line in study_lines(engine))
        engine.dispose()
        return Shown(
            sent=sent,
            histories=tuple(item for item in histories if item is not None),
            reports=tuple(item.path for item in received if item.sop_class_uid == COMPREHENSIVE_3D_SR),
            results=tuple(item.path for item in received),
            sheets=tuple(self._sheets),
            readings=tuple(self._readings),
            truth=truth,
            seconds=self._seconds,
        )


def match_truth(truth: PhantomTruth, findings: Sequence[Finding]) -> dict[int, Finding]:
    """Return, by the nodule's ordinal, the nearest finding whose centre lies within its radius (at least 5 mm)."""
    matched: dict[int, Finding] = {}
    for nodule in truth.nodules:
        reach = max(nodule.diameter_mm / 2, 5.0)
        near = [
            (float(np.linalg.norm(np.subtract(item.center_mm, nodule.center_mm))), item.ordinal, item)
            for item in findings
        ]
        if near and min(near)[0] <= reach:
            matched[nodule.ordinal] = min(near)[2]
    return matched
