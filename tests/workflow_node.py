"""A node's workflow as a process of its own, to be killed: `python -m tests.workflow_node STATE PORT VERSION`.

Steps take a random little while. A study whose UID ends in .666 kills the process that makes its evidence.
"""

import os
import random
import signal
import sys
import threading
from pathlib import Path

from node.settings import Destination
from node.workflow.steps import RunRequest
from tests.workflow_doubles import running_node

POISON = ".666"


def linger(run: RunRequest, _series: str) -> None:
    if run.study_uid.endswith(POISON):
        os.kill(os.getpid(), signal.SIGKILL)
    threading.Event().wait(random.uniform(0.0, float(os.environ.get("HILUM_TEST_LINGER_S", "0.2"))))


def main(state: Path, port: int, version: str) -> None:
    pacs = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=port, retry_first_s=0.2, retry_most_s=1.0)
    with running_node(state, (pacs,), version=version, before_evidence=linger, from_scratch=True):
        print("ready", flush=True)
        signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
