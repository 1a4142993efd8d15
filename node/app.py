"""The composition root: builds the parts of a node from its settings, connects them, starts and stops them in order."""

from collections.abc import Collection, Mapping
from contextlib import ExitStack

import pydicom
import structlog
from sqlalchemy import Engine

from node.domain.instances import ReceivedInstance
from node.early.sender import EarlySender, EarlyTerms
from node.index.engine import open_index
from node.index.runs import ModelVersion
from node.inference_client.client import InferenceClient
from node.inference_client.service import ServiceProcess
from node.inference_client.transport import UPLOAD_FROM_BYTES
from node.intake.listener import Listener
from node.models import models_directory, open_bundles
from node.results.evidence_writer import warm_up
from node.settings import InferenceSettings, Settings
from node.state_directory import StateDirectory
from node.steps import MEGABYTE, OnReading, StudySteps, version_of
from node.store.instance_files import InstanceStore
from node.store.outbox import Outbox
from node.workflow.courier import Courier
from node.workflow.steps import Steps, WorkflowTerms
from node.workflow.workflow import Workflow
from protos.model_manifest import ModelBundle

log = structlog.get_logger()
EARLY_IDLE_S = 240.0
"""Time that a study that is ready may wait for its turn with its slices at the service."""


class Node:
    """One running node. `start` returns when it listens; `stop` leaves nothing behind but durable state."""

    def __init__(self, settings: Settings, *, start_service: bool, on_reading: OnReading | None = None) -> None:
        """Keep the settings; nothing is opened yet.

        Args:
            settings: all settings; each part gets its slice.
            start_service: run the inference service as a child process of this one.
            on_reading: told of every reading that became evidence.
        """
        self.settings = settings
        self._start_service = start_service
        self._on_reading = on_reading
        self._parts = ExitStack()
        self.workflow: Workflow | None = None

    def start(self) -> tuple[str, int]:
        """Open the state, start service, workflow and listener in this order; return the address listened on.

        Raises:
            SettingsError: something that the settings name is not there or cannot be used.
            InferenceUnavailable: the service that this node starts does not come up.
        """
        with ExitStack() as parts:
            address = self._open(parts)
            self._parts = parts.pop_all()
        return address

    def stop(self) -> None:
        """Stop listening, let running steps end, close the files; safe to call twice."""
        self._parts.close()

    def _open(self, parts: ExitStack) -> tuple[str, int]:
        settings = self.settings
        # pydicom's warnings quote values, and values may be a patient's.
        pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
        state = parts.enter_context(StateDirectory(settings.store.state_directory))
        bundles = {version_of(bundle): bundle for bundle in open_bundles(settings.inference)}
        store = InstanceStore(state.store)
        engine = open_index(state.index, store_directory=state.store)
        parts.callback(engine.dispose)
        warm_up()
        client = InferenceClient(self._service(state, parts))
        early = self._early_sender(client, tuple(bundles.values()))
        listener = Listener(
            settings.listener,
            store,
            engine,
            low_disk_bytes=settings.store.low_disk_bytes,
            on_stored=_ignore_instance if early is None else early.note,
            on_closed=self._wake,
        )
        self.workflow = self._workflow(state, engine, client, bundles, listener)
        parts.callback(self.workflow.stop)
        parts.callback(client.close)
        self.workflow.launch()
        if early is not None:
            parts.callback(early.stop)
            early.start()
        parts.callback(listener.stop)
        address = listener.start()
        log.info("node_started", address=f"{address[0]}:{address[1]}", models=[item.name for item in bundles])
        return address

    def _workflow(
        self,
        state: StateDirectory,
        engine: Engine,
        client: InferenceClient,
        bundles: Mapping[ModelVersion, ModelBundle],
        listener: Listener,
    ) -> Workflow:
        settings, outbox = self.settings, Outbox(state.outbox)
        outbox.sweep()
        steps = StudySteps(
            engine, outbox, client, bundles, settings.processing, self._on_reading, on_selected=client.early.judged
        )
        courier = Courier(engine, outbox.directory, settings.destinations, settings.listener.ae_title)
        terms = WorkflowTerms(
            models=tuple(bundles),
            settings_digest=settings.result_digest,
            destinations=settings.destinations,
            outbox_directory=outbox.directory,
            concurrency=settings.processing.concurrency,
            completion=settings.completion,
        )
        return Workflow(
            state.directory,
            engine,
            Steps(select=steps.select, make_evidence=steps.make_evidence, deliver_once=courier.deliver_once),
            terms,
            open_studies=listener.open_studies,
        )

    def _service(self, state: StateDirectory, parts: ExitStack) -> InferenceSettings:
        settings = self.settings.inference
        if not self._start_service:
            return settings
        log_level = self.settings.log.level
        service = ServiceProcess(settings, models_directory(settings), state.run, log_level=log_level)
        parts.callback(service.stop)
        return settings.with_started(service.start())

    def _early_sender(self, client: InferenceClient, bundles: Collection[ModelBundle]) -> EarlySender | None:
        """Build what sends slices ahead of their volumes; None where the settings want all to travel as one."""
        inference, completion = self.settings.inference, self.settings.completion
        if inference.early_upload == "off" or inference.regions == "off":
            return None
        terms = EarlyTerms(
            least_bytes=0 if inference.regions == "upload" else UPLOAD_FROM_BYTES,
            slices=inference.early_upload_slices,
            max_bytes=self.settings.processing.max_volume_mb * MEGABYTE,
            idle_s=completion.hanging_s + EARLY_IDLE_S,
        )
        return EarlySender(client, bundles, terms)

    def _wake(self, _studies: frozenset[str]) -> None:
        if self.workflow is not None:
            self.workflow.wake()


def _ignore_instance(_instance: ReceivedInstance) -> None:
    """Nothing needs to happen per instance where nothing is sent early: completion looks at the index."""
