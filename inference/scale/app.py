"""Composition root of the application: cluster, deployments, ready file, drain, end."""

import threading
import time
from collections.abc import Mapping
from typing import Any

import ray
import structlog
from ray import serve
from ray.exceptions import RayError
from ray.serve.config import HTTPOptions, ProxyLocation, gRPCOptions
from ray.serve.exceptions import RayServeException
from ray.serve.schema import LoggingConfig

from inference.ending import stop_on_signals
from inference.listening import warn_if_open
from inference.ports import ModelState
from inference.ready_file import write_ready_file
from inference.scale.addresses import LOOPBACK, free_port, port_of, remove_sockets, settled
from inference.scale.cluster import cluster
from inference.scale.confinement import Doors, check_ray
from inference.scale.deployment import APPLICATION, build_application
from inference.scale.doors import SERVICER_FUNCTION
from inference.scale.needs import refuse_missing
from inference.scale.offer import look_at
from inference.scale.settings import ScaleSettings
from inference.scale.terms import ModelTerms, read_scaling
from inference.scale.watch import ReplicaWatch

_log = structlog.get_logger(__name__)
_STARTING_LOOK_S, _LOOK_S = 0.2, 1.0
_ANSWER_S = 10.0
_SETTLE_S = 0.25
"""After the last answer: a client that asks again at once is told UNAVAILABLE, before its connection closes."""
_FAILED = ("DEPLOY_FAILED", "UNHEALTHY")
_LOST = (RayError, RayServeException, ConnectionError, TimeoutError)


class ScaleService:
    """One application: joins or starts a cluster, deploys, waits until each model answers or is refused, and serves."""

    def __init__(self, settings: ScaleSettings) -> None:
        """Look at models and addresses; raise SettingsRefused or ListenError where that cannot be."""
        check_ray()
        self._settings = settings
        self._offer = look_at(settings.models_directory, settings.models, settings.versions)
        self._terms = _terms(settings, self._offer.models)
        self.addresses = tuple(settled(address) for address in settings.listen)
        self._stop = threading.Event()
        self._watch = ReplicaWatch(APPLICATION)

    def run(self) -> int:
        """Serve until SIGTERM, SIGINT or the parent's end.

        Returns:
            The exit status: 0 ended as asked; 1 no model could be loaded, or the cluster was lost.

        Raises:
            SettingsRefused: the cluster cannot be joined, or has not what the replicas need.
        """
        for (name, version), reason in self._offer.refused.items():
            _log.error("model_refused", model=f"{name}/{version}", reason=reason)
        if not self._offer.models:
            return 1
        with cluster(self._settings, self._doors().to_environment()):
            stop_on_signals(self)  # Ray put a handler of its own in the place of ours
            refuse_missing(self._terms, ray.cluster_resources())
            try:
                status = self._serve()
            except _LOST as error:
                _log.error("cluster_lost", reason=type(error).__name__)
                status = 1
        remove_sockets(self.addresses)
        _log.info("service_stopped")
        return status

    def stop(self) -> None:
        """Ask the application to end; running requests get their grace."""
        self._stop.set()

    def _doors(self) -> Doors:
        tls = self._settings.tls
        files = tuple(
            "" if path is None else str(path.absolute()) for path in (tls.certificate, tls.key, tls.client_ca)
        )
        return Doors(self.addresses, files, own_host_only=self._settings.cluster.address is None)

    def _serve(self) -> int:
        if not self._stop.is_set():
            self._open_doors()
        if not self._stop.is_set():
            self._deploy()
        states = self._await_models()
        answering = [f"{state.name}/{state.version}" for state in states if state.state == "READY"]
        if not answering:
            return 0 if self._stop.is_set() else 1
        self._announce(answering, {f"{of.name}/{of.version}": of.reason for of in states if of.state == "UNAVAILABLE"})
        try:
            while not self._stop.wait(_LOOK_S):
                self._watch.look()
            self._drain()
        finally:
            if self._settings.ready_file is not None:
                self._settings.ready_file.unlink(missing_ok=True)
        return 0

    def _open_doors(self) -> None:
        ports = [port for address in self.addresses if (port := port_of(address))]
        serve.start(
            ProxyLocation.HeadOnly if self._settings.cluster.address is None else ProxyLocation.EveryNode,
            HTTPOptions(host=LOOPBACK, port=free_port()),
            gRPCOptions(
                port=ports[0] if ports else free_port(),  # Ray wants one; `confinement` opens the doors
                grpc_servicer_functions=[SERVICER_FUNCTION],
                enable_reflection=self._settings.reflection,
            ),
            logging_config=_quiet(),
        )

    def _deploy(self) -> None:
        application = build_application(self._settings, self._offer, self._terms)
        serve.run_many(
            [serve.RunTarget(application, name=APPLICATION, logging_config=_quiet())],
            wait_for_ingress_deployment_creation=False,
            wait_for_applications_running=False,
        )

    def _await_models(self) -> list[ModelState]:
        """Wait until each model answers or is refused; empty where that failed or was broken off."""
        while not self._stop.wait(_STARTING_LOOK_S):
            status = self._watch.look()
            if status in _FAILED:
                _log.error("deployment_failed", reason=self._watch.failure(APPLICATION))
                return []
            if status == "RUNNING":
                states = _index()
                if states and all(state.state != "LOADING" for state in states):
                    return states
        return []

    def _announce(self, models: list[str], refused: Mapping[str, str]) -> None:
        _log.info("service_started", addresses=list(self.addresses), models=models)
        for address in self.addresses if not self._settings.tls.is_on else ():
            warn_if_open(address)
        if self._settings.ready_file is not None:
            line = {"addresses": list(self.addresses), "models": models, "refused": dict(refused)}
            write_ready_file(self._settings.ready_file, line)

    def _drain(self) -> None:
        grace_s = self._settings.grace_s
        _log.info("drain_started", grace_s=grace_s)
        until = time.monotonic() + grace_s
        ingress = serve.get_app_handle(APPLICATION)
        ingress.broadcast("close").results(timeout_s=_ANSWER_S)
        ingress.broadcast("drained", grace_s).results(timeout_s=grace_s + _ANSWER_S)
        threading.Event().wait(max(0.0, min(_SETTLE_S, until - time.monotonic())))


def _terms(settings: ScaleSettings, names: Mapping[str, Any]) -> dict[str, ModelTerms]:
    apart = read_scaling(settings.scaling, settings.terms, names) if settings.scaling is not None else {}
    return {name: apart.get(name, settings.terms) for name in names}


def _quiet() -> LoggingConfig:
    """Ray logs what is wrong, and no request: those are logged by their replica."""
    return LoggingConfig(log_level="WARNING", enable_access_log=False)


def _index() -> list[ModelState]:
    """Ask the ingress what the replicas reported; empty while it does not answer."""
    try:
        states: list[ModelState] = serve.get_app_handle(APPLICATION).index.remote().result(timeout_s=_ANSWER_S)
    except _LOST:
        return []
    return states
