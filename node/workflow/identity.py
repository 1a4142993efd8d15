"""The names of durable work: derived from its inputs, so that whoever enqueues it twice enqueues it once."""

import uuid
from pathlib import Path

from node.index.runs import DecidedGeneration, ModelVersion

APPLICATION_VERSION = "1"
"""Raised only when the order of steps in `bodies.py` changes. Work of another version is begun anew, never replayed."""
_TURN = "+"


def run_id_of(decided: DecidedGeneration, model: ModelVersion, settings_digest: str, attempt: int) -> str:
    """Name the run of a model on a generation under these settings; `attempt` 0 leaves no trace in the name."""
    parts = [
        decided.study_uid,
        decided.generation[:16],
        f"{model.name}-{model.version}",
        model.digest[:16],
        settings_digest[:16],
    ]
    return "/".join(parts if attempt == 0 else [*parts, str(attempt)])


def delivery_id_of(evidence_key: str, destination: str) -> str:
    """Name the delivery of a set to a destination."""
    return f"{evidence_key}/{destination}"


def workflow_id_of(work_id: str, turn: int) -> str:
    """Name the workflow that does the work's turn: a wait ends one turn, the next one is another workflow."""
    return work_id if turn == 0 else f"{work_id}{_TURN}{turn}"


def work_of(workflow_id: str) -> tuple[str, int]:
    """Return the work and the turn that a workflow id names."""
    work_id, _, turn = workflow_id.partition(_TURN)
    return work_id, int(turn or 0)


def executor_id_of(state_directory: Path) -> str:
    """Return the node's id for DBOS: made once, kept in the state directory, the same after every restart."""
    path = state_directory / "executor_id"
    if not path.exists():
        fresh = path.with_suffix(".part")
        fresh.write_text(f"{uuid.uuid4()}\n", encoding="ascii")
        fresh.rename(path)
    return path.read_text(encoding="ascii").strip()
