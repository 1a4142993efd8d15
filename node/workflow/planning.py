"""What is to be done, written into the index before anything is enqueued: which models run over which generation."""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Engine

from node.index.deliveries import reopen_refused
from node.index.history import record_event
from node.index.runs import (
    DecidedGeneration,
    ModelVersion,
    RunRequest,
    close_retry_request,
    end_run,
    last_attempt,
    newest_generation,
    open_retry_requests,
    plan_runs,
    unfinished_runs,
    unplanned_generations,
)
from node.workflow.identity import run_id_of
from node.workflow.steps import WorkflowTerms


def plan_decided(engine: Engine, terms: WorkflowTerms, now: datetime) -> tuple[RunRequest, ...]:
    """Plan every generation that has no run yet, with the models of now; return the new runs."""
    planned: list[RunRequest] = []
    for decided in unplanned_generations(engine):
        requests = _requests(decided, terms.models, terms.settings_digest, attempt=0)
        plan_runs(engine, requests, now=now)
        planned.extend(requests)
    return tuple(planned)


def replace_outdated(engine: Engine, terms: WorkflowTerms, now: datetime) -> None:
    """Plan the unfinished runs anew whose model or settings are not those of now: nobody could finish them.

    The same model in its present version takes over; where there is none, the run ends with that reason.
    """
    for item in unfinished_runs(engine):
        if item.model in terms.models and item.settings_digest == terms.settings_digest:
            continue
        successors = [model for model in terms.models if model.name == item.model.name]
        decided = DecidedGeneration(item.study_uid, item.generation, item.decided_at)
        attempt = last_attempt(engine, decided) + 1
        plan_runs(engine, _requests(decided, successors, terms.settings_digest, attempt=attempt), now=now)
        after = "runs anew with what is installed now" if successors else "no version of the model is installed"
        end_run(engine, item.run_id, "FAILED", f"model or settings changed before it ended: {after}", now=now)


def take_retry_requests(engine: Engine, terms: WorkflowTerms, now: datetime) -> tuple[str, ...]:
    """Turn `hilum retry` requests into new attempts and reopened deliveries; return the studies asked for."""
    taken = open_retry_requests(engine)
    for request_id, study_uid in taken:
        reopened = reopen_refused(engine, study_uid)
        runs = _plan_another_attempt(engine, terms, study_uid, now)
        text = f"{runs} runs planned, {reopened} refused deliveries opened again"
        record_event(engine, study_uid, "retry_planned", text, now=now)
        close_retry_request(engine, request_id, now=now)
    return tuple(study_uid for _, study_uid in taken)


def _plan_another_attempt(engine: Engine, terms: WorkflowTerms, study_uid: str, now: datetime) -> int:
    decided = newest_generation(engine, study_uid)
    if decided is None or any(item.study_uid == study_uid for item in unfinished_runs(engine)):
        return 0
    attempt = last_attempt(engine, decided) + 1
    requests = _requests(decided, terms.models, terms.settings_digest, attempt=attempt)
    plan_runs(engine, requests, now=now)
    return len(requests)


def _requests(
    decided: DecidedGeneration, models: Iterable[ModelVersion], settings_digest: str, *, attempt: int
) -> tuple[RunRequest, ...]:
    return tuple(
        RunRequest(
            run_id=run_id_of(decided, model, settings_digest, attempt),
            study_uid=decided.study_uid,
            generation=decided.generation,
            model=model,
            settings_digest=settings_digest,
            attempt=attempt,
            decided_at=decided.decided_at,
        )
        for model in models
    )
