import urllib.request

import pytest
from prometheus_client import CollectorRegistry

from inference.admission import MemoryState
from inference.errors import ListenError
from inference.metrics import MetricsDoor, ServiceCollector, Sources
from inference.ports import ModelState
from inference.regions.leased import RegionCounts
from inference.statistics import Stages, Statistics


class TwoModels:
    def index(self) -> list[ModelState]:
        return [ModelState("one", "1", "READY"), ModelState("two", "3", "UNAVAILABLE", "its file is broken")]


def collector() -> ServiceCollector:
    statistics = Statistics()
    for size in (1, 3, 3):
        statistics.record_success("one", "1", Stages(0.5, 0.25, 2.0, 0.25, batch_size=size))
    statistics.record_failure("one", "1", 1.0)
    counts = RegionCounts(leases=1, regions=2, bytes=4096, created=5, expired=1, refused=3)
    memory = MemoryState(total=1000, free=400)
    return ServiceCollector(Sources(statistics, TwoModels(), lambda: counts, lambda: memory))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("hilum_requests_total", {"model": "one", "version": "1", "outcome": "success"}, 3),
        ("hilum_requests_total", {"model": "one", "version": "1", "outcome": "fail"}, 1),
        ("hilum_requests_total", {"model": "two", "version": "3", "outcome": "success"}, 0),
        ("hilum_request_seconds_total", {"model": "one", "version": "1", "outcome": "success"}, 9),
        ("hilum_stage_seconds_total", {"model": "one", "version": "1", "stage": "queue"}, 1.5),
        ("hilum_stage_seconds_total", {"model": "one", "version": "1", "stage": "compute"}, 6),
        ("hilum_batch_size_bucket", {"model": "one", "version": "1", "le": "1.0"}, 1),
        ("hilum_batch_size_bucket", {"model": "one", "version": "1", "le": "4.0"}, 3),
        ("hilum_batch_size_sum", {"model": "one", "version": "1"}, 7),
        ("hilum_model_state", {"model": "two", "version": "3", "state": "UNAVAILABLE"}, 1),
        ("hilum_memory_free_bytes", {}, 400),
        ("hilum_region_bytes", {}, 4096),
        ("hilum_region_events_total", {"event": "refused"}, 3),
    ],
)
def test_the_collector_tells_what_its_sources_hold(name: str, labels: dict[str, str], value: float) -> None:
    registry = CollectorRegistry()
    registry.register(collector())
    assert registry.get_sample_value(name, labels) == value


def test_the_door_answers_on_a_free_port_and_says_where_none_is() -> None:
    door = MetricsDoor("127.0.0.1:0", collector())
    try:
        with urllib.request.urlopen(f"http://{door.address}/metrics", timeout=20) as answer:
            text = answer.read().decode()
        with pytest.raises(ListenError, match="--metrics"):
            MetricsDoor(door.address, collector())
    finally:
        door.close()
    assert "hilum_resident_bytes" in text
    assert "broken" not in text
