"""The bodies of the workflows: the order of the steps and nothing else. No clock, no randomness, no I/O, no settings.

    process_study:  select -> make_evidence -> one `deliver` per destination
    deliver:        deliver_once

Where a step asks for a wait, the body enqueues the work's next turn, delayed, and ends: the wait is durable, and it
holds neither a place in the queue nor a thread, so what can go on goes on. A change of the order of steps raises
`identity.APPLICATION_VERSION`.
"""

from typing import Any

from dbos import DBOS

from node.workflow.durable import DeliveryBody, DurableQueues, RunBody
from node.workflow.edges import StepEdges


def define_bodies(edges: StepEdges, queues: DurableQueues) -> tuple[RunBody, DeliveryBody]:
    """Return the bodies of process_study and deliver over these edges."""

    def process_study(run_id: str, turn: int) -> None:
        series_uid = DBOS.run_step({"name": "select"}, edges.select, run_id)
        if series_uid is None:
            return
        made: Any = DBOS.run_step({"name": "make_evidence"}, edges.make_evidence, run_id, series_uid, turn)
        if made["wait_s"] is not None:
            queues.enqueue_run(run_id, turn + 1, delay_s=made["wait_s"])
        for evidence_key, destination in made["deliveries"]:
            queues.enqueue_delivery(evidence_key, destination)

    def deliver(evidence_key: str, destination: str, turn: int) -> None:
        wait_s = DBOS.run_step({"name": "deliver_once"}, edges.deliver, evidence_key, destination, turn)
        if wait_s is not None:
            queues.enqueue_delivery(evidence_key, destination, turn + 1, delay_s=wait_s)

    return process_study, deliver
