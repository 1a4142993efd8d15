"""How many replicas of each model run: looked at every second, logged when it changes."""

from dataclasses import dataclass
from typing import Any

import structlog

_log = structlog.get_logger(__name__)
_REASON_MOST = 600


@dataclass(frozen=True, slots=True)
class Counts:
    """Replicas of one deployment."""

    running: int
    starting: int
    stopping: int
    status: str
    """Of the deployment, in Ray's words: HEALTHY, UPDATING, UNHEALTHY, UPSCALING, DOWNSCALING, DEPLOY_FAILED."""


class ReplicaWatch:
    """Keeps what the last look showed."""

    def __init__(self, application: str) -> None:
        self._application = application
        self._known: dict[str, Counts] = {}

    def look(self) -> str:
        """Ask Ray; give the application's status in its words, with the message of a failed deployment."""
        from ray import serve

        seen = serve.status().applications.get(self._application)
        if seen is None:
            return "NOT_STARTED"
        for name, deployment in seen.deployments.items():
            counts = _counted(deployment)
            if self._known.get(name) != counts:
                self._known[name] = counts
                _log.info(
                    "replicas_changed",
                    deployment=name,
                    running=counts.running,
                    starting=counts.starting,
                    stopping=counts.stopping,
                    status=counts.status,
                )
        return str(seen.status.value)

    @staticmethod
    def failure(application: str) -> str:
        """Give what Ray says of an application that could not be deployed: the last line of its trace."""
        from ray import serve

        seen = serve.status().applications.get(application)
        if seen is None:
            return "it is gone"
        failed = [of.message for of in seen.deployments.values() if of.message and of.status.value != "HEALTHY"]
        lines = str((failed or [seen.message])[0]).strip().splitlines()
        return lines[-1][:_REASON_MOST] if lines else str(seen.status.value)


def _counted(deployment: Any) -> Counts:
    states = {getattr(state, "value", str(state)): count for state, count in deployment.replica_states.items()}
    return Counts(
        running=states.get("RUNNING", 0),
        starting=states.get("STARTING", 0) + states.get("UPDATING", 0),
        stopping=states.get("STOPPING", 0),
        status=str(deployment.status.value),
    )
