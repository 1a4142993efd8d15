"""Volumes that are built in the service's memory: not copied again, never lost under whoever still views them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from structlog.testing import capture_logs

from node.domain.volume import Volume
from node.errors import InferenceBroken, InferenceRejected, InferenceUnavailable
from node.imaging.headers import read_header
from node.inference_client import requests
from node.inference_client.client import InferenceClient
from node.pipeline import read_series
from node.settings import InferenceSettings
from protos.model_manifest import ModelBundle, open_bundle
from tests.inference_service import RunningService, bright_volume, client_of, kill, running_service, volume_of
from tests.series_factory import SeriesPlan, write_series

SHAPE = (3, 17, 40)


@pytest.fixture
def client(service: RunningService) -> Iterator[InferenceClient]:
    with client_of(service.tcp) as opened:
        yield opened


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count what is written to regions by copying."""
    counted: list[int] = []
    write = requests.StoredValues.written

    def written(stored: requests.StoredValues, room: NDArray[np.uint8]) -> requests.StoredValues:
        counted.append(stored.source.nbytes)
        return write(stored, room)

    monkeypatch.setattr(requests.StoredValues, "written", written)
    return counted


def echo(service: RunningService) -> ModelBundle:
    return open_bundle(service.models / "echo" / "1")


def built_in_room(client: InferenceClient, voxels: NDArray[np.generic]) -> Volume:
    room = client.room(voxels.nbytes)
    assert room is not None
    place = np.frombuffer(room, voxels.dtype).reshape(voxels.shape)
    place[...] = voxels
    return volume_of(place)


def test_a_volume_in_a_region_is_not_copied(
    client: InferenceClient, service: RunningService, copies: list[int]
) -> None:
    voxels = np.random.default_rng(1).integers(-2000, 2000, SHAPE, np.int16)
    volume = built_in_room(client, voxels)
    for _ in range(2):
        np.testing.assert_array_equal(client.infer(echo(service), volume).outputs["stored"], voxels)
    assert copies == []
    np.testing.assert_array_equal(volume.voxels, voxels)


@pytest.mark.parametrize(
    ("voxels", "copied"),
    [
        (np.arange(2040, dtype=np.uint16).reshape(SHAPE), 0),
        (np.arange(2040, dtype=np.uint16).reshape(SHAPE) + 40_000, 1),
        (np.arange(2040).astype(np.uint8).reshape(SHAPE), 1),
    ],
    ids=["same bytes", "shifted", "widened"],
)
def test_voxels_that_change_on_the_way_are_copied_and_stay_as_they_were(
    client: InferenceClient, service: RunningService, copies: list[int], voxels: NDArray[np.generic], copied: int
) -> None:
    volume = built_in_room(client, voxels)
    expected = client.infer(echo(service), volume_of(voxels.copy())).outputs["stored"]
    copies.clear()
    np.testing.assert_array_equal(client.infer(echo(service), volume).outputs["stored"], expected)
    assert len(copies) == copied
    np.testing.assert_array_equal(volume.voxels, voxels)


def test_a_flipped_volume_is_copied_in_its_order(
    client: InferenceClient, service: RunningService, copies: list[int]
) -> None:
    voxels = np.arange(2040, dtype=np.int16).reshape(SHAPE)
    volume = built_in_room(client, voxels)
    flipped = volume_of(volume.voxels[::-1])
    np.testing.assert_array_equal(client.infer(echo(service), flipped).outputs["stored"], voxels[::-1])
    assert len(copies) == 1


def test_a_region_comes_back_when_its_volume_goes_and_not_before(client: InferenceClient) -> None:
    first, second = client.room(5000), client.room(5000)
    assert first is not None
    assert second is not None
    address = np.frombuffer(first, np.uint8).ctypes.data
    assert address != np.frombuffer(second, np.uint8).ctypes.data
    part = np.frombuffer(first, np.uint8)[10:20]
    del first
    third = client.room(5000)
    assert np.frombuffer(third, np.uint8).ctypes.data != address
    del part
    fourth = client.room(5000)
    assert np.frombuffer(fourth, np.uint8).ctypes.data == address


@pytest.mark.parametrize("way", ["upload", "off"])
def test_there_is_no_room_where_nothing_is_mapped(service: RunningService, way: str) -> None:
    with client_of(service.tcp, regions=way) as client:
        assert client.room(5000) is None


def test_there_is_no_room_in_a_service_that_is_away() -> None:
    with client_of("127.0.0.1:9") as client:
        assert client.room(5000) is None


def test_after_a_refused_request_the_volume_is_whole_and_its_region_is_not_used_again(
    client: InferenceClient, service: RunningService, copies: list[int]
) -> None:
    voxels = np.full(SHAPE, 7, np.int16)
    volume = built_in_room(client, voxels)
    address = volume.voxels.ctypes.data
    absent = echo(service)
    identity = absent.manifest.identity.model_copy(update={"version": "9"})
    renamed = ModelBundle(absent.directory, absent.manifest.model_copy(update={"identity": identity}), absent.digest)
    with capture_logs() as events, pytest.raises(InferenceRejected, match="version"):
        client.infer(renamed, volume)
    assert "lease_lost" not in [item["event"] for item in events], "other requests use regions of that lease"
    np.testing.assert_array_equal(client.infer(echo(service), volume).outputs["stored"], voxels)
    assert len(copies) == 1, "the service may still use the region of a failed request"
    del volume
    assert np.frombuffer(client.room(voxels.nbytes), np.uint8).ctypes.data != address


def test_a_volume_outlives_the_service_it_was_built_in(good_models: Path, tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/s"
    voxels = np.full(SHAPE, 7, np.int16)
    only = ("--model", "echo", "--listen", address)
    with client_of(address) as client:
        with running_service(good_models, *only) as service:
            volume = built_in_room(client, voxels)
            kill(service.process.pid)
            service.process.wait(10)
            with pytest.raises((InferenceUnavailable, InferenceBroken)):
                client.infer(echo(service), volume)
        np.testing.assert_array_equal(volume.voxels, voxels)
        Path(address.removeprefix("unix:")).unlink(missing_ok=True)
        with running_service(good_models, *only) as service:
            client.wait_ready("echo", "1", 30)
            np.testing.assert_array_equal(client.infer(echo(service), volume).outputs["stored"], voxels)


def test_the_service_that_gave_the_room_is_asked_and_the_others_take_their_turns(
    good_models: Path, copies: list[int]
) -> None:
    only = ("--model", "echo")
    with running_service(good_models, *only) as one, running_service(good_models, *only) as two:
        client = InferenceClient(InferenceSettings(endpoints=(one.tcp, two.tcp)))
        bundle, voxels, asked = echo(one), np.full(SHAPE, 7, np.int16), []
        for _ in range(4):
            volume = built_in_room(client, voxels)
            holder = next(item for item in client.endpoints if client._transports[item].holds(volume.voxels))
            asked.append(holder.address)
            client.infer(bundle, volume)
        assert copies == []
        assert asked == [one.tcp, two.tcp] * 2
        kill(one.process.pid)
        one.process.wait(10)
        with capture_logs():
            np.testing.assert_array_equal(client.infer(bundle, volume_of(voxels)).outputs["stored"], voxels)
        client.close()


def test_the_data_path_builds_volumes_in_the_service(
    client: InferenceClient, service: RunningService, copies: list[int], tmp_path: Path
) -> None:
    bundle = open_bundle(service.models / "bright_regions" / "1")
    paths = write_series(SeriesPlan(bright_volume().voxels, shuffle=True), tmp_path)
    headers = tuple(read_header(path) for path in paths)
    there = read_series(bundle, headers, client.infer, max_bytes=1 << 20, room=client.room)
    assert copies == []
    here = read_series(bundle, headers, client.infer, max_bytes=1 << 20)
    assert len(copies) == 1
    np.testing.assert_array_equal(there.volume.voxels, here.volume.voxels)
    for name, expected in here.prediction.outputs.items():
        np.testing.assert_array_equal(there.prediction.outputs[name], expected)
