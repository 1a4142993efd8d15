"""The scheduler on a full disk: it slows down, says each cause once, and goes on when there is room."""

import errno
import time
from datetime import datetime
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from structlog.testing import capture_logs

from node.index.engine import open_index
from node.workflow import scheduler as rooms
from node.workflow.scheduler import Scheduler
from tests.waiting import wait_until
from tests.workflow_doubles import terms_for


def test_trouble_slows_the_ticks_and_is_told_once_per_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "TICK_S", 0.01)
    engine = open_index(tmp_path / "index.sqlite")
    errors = [OSError(errno.ENOSPC, "No space left on device") for _ in range(5)]
    errors += [OSError(errno.EIO, "Input/output error") for _ in range(2)]
    ticks: list[float] = []

    def decide(_now: datetime) -> None:
        ticks.append(time.monotonic())
        if errors:
            raise errors.pop(0)

    scheduler = Scheduler(engine, MagicMock(), terms_for(tmp_path), decide_studies=decide)
    with capture_logs() as logs:
        scheduler.start()
        wait_until(lambda: len(ticks) > 9, what="ticks after the trouble")
        scheduler.stop()
    engine.dispose()
    told = [item["event"] for item in logs]
    assert told == ["schedule_failed", "schedule_failed", "schedule_resumed"]
    assert ticks[7] - ticks[6] >= 0.01 * 2**7
    assert rooms._SLOWEST_TICK_S <= 10
