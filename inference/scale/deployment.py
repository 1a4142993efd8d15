"""The application in Ray Serve's terms: one deployment for each model, behind one ingress."""

from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig

from inference.scale.ingress import Ingress, IngressSettings
from inference.scale.offer import Offer
from inference.scale.remote_model import Room
from inference.scale.replica import ModelReplica, ReplicaSettings
from inference.scale.settings import ScaleSettings
from inference.scale.terms import ModelTerms

APPLICATION = "hilum"
INGRESS = "Ingress"
"""No model has this name: theirs are in lower case."""
_STREAMS_ROOM = 64
"""Calls beside inference that an ingress replica answers at once: health, metadata, streams."""


def build_application(settings: ScaleSettings, offer: Offer, terms: Mapping[str, ModelTerms]) -> Application:
    """Bind the deployments of every model to the ingress."""
    handles = {name: _model(settings, name, offer, terms[name]) for name in offer.models}
    rooms = {name: Room(of.ongoing_most(offer.models[name]), of.queue) for name, of in terms.items()}
    most = sum(_requests_most(terms[name], room) for name, room in rooms.items())
    ingress = serve.deployment(
        Ingress,
        name=INGRESS,
        num_replicas=settings.ingress_replicas,
        max_ongoing_requests=most + _STREAMS_ROOM,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=settings.grace_s + 1,
    )
    of = IngressSettings(offer.versions, dict(offer.refused), rooms, most, settings.log_level)
    return ingress.bind(of, handles)


def _model(settings: ScaleSettings, name: str, offer: Offer, terms: ModelTerms) -> Application:
    batching = offer.models[name]
    scaling: dict[str, Any] = {"num_replicas": terms.min_replicas}
    if terms.replicas_most > terms.min_replicas:
        scaling = {"autoscaling_config": _autoscaling(terms, terms.target_of(batching))}
    replica = ReplicaSettings(
        application=APPLICATION,
        model=name,
        models_directory=settings.models_directory.absolute(),
        versions=settings.versions,
        poll_s=settings.poll_s,
        ongoing_most=terms.ongoing_most(batching),
        concurrency=terms.concurrency,
        num_cpus=terms.num_cpus,
        log_level=settings.log_level,
    )
    deployment = serve.deployment(
        ModelReplica,
        name=name,
        max_ongoing_requests=terms.ongoing_most(batching),
        max_queued_requests=_requests_most(terms, Room(terms.ongoing_most(batching), terms.queue)),
        ray_actor_options={"num_cpus": terms.num_cpus, "num_gpus": terms.num_gpus},
        graceful_shutdown_timeout_s=settings.grace_s + 1,
        graceful_shutdown_wait_loop_s=0.1,
        **scaling,
    )
    return deployment.bind(replica)


def _requests_most(terms: ModelTerms, room: Room) -> int:
    return terms.replicas_most * room.in_replica + room.queue


def _autoscaling(terms: ModelTerms, target: float) -> AutoscalingConfig:
    return AutoscalingConfig(
        min_replicas=terms.min_replicas,
        max_replicas=terms.replicas_most,
        target_ongoing_requests=target,
        upscale_delay_s=terms.up_delay_s,
        downscale_delay_s=terms.down_delay_s,
        look_back_period_s=terms.look_back_s,
        metrics_interval_s=terms.look_every_s,
    )
