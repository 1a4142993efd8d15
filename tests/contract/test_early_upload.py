"""Slices sent while a series arrives: used where they are proven to be the volume, else as if they had not been sent.

The sender, the client and the service's regions are the real ones; the files are noted as the listener would.
"""

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from inference.regions.leased import RegionLimits
from node.domain.instances import ImageHeader, ReceivedInstance
from node.early import sender as sender_module
from node.early.sender import EarlySender, EarlyTerms
from node.errors import InferenceUnavailable
from node.imaging.headers import read_header
from node.inference_client import early_upload as early_upload_module
from node.inference_client import region_pool
from node.inference_client.client import InferenceClient
from node.inference_client.endpoints import Rotation
from node.inference_client.local_region import RegionUnreachable
from node.inference_client.transport import UPLOAD_FROM_BYTES, Transport
from node.pipeline import Reading, read_series
from node.settings import InferenceSettings
from protos.model_manifest import ModelBundle, ModelManifest
from tests.bundles import threshold_manifest
from tests.early_service import Chunk, EarlyService, early_service, manifest_bundle
from tests.series_factory import SeriesPlan, write_series
from tests.waiting import wait_until

TERMS = EarlyTerms(least_bytes=0, slices=32, max_bytes=1 << 28, idle_s=300.0)
SIZE = 24
SLICE_BYTES = SIZE * SIZE * 2


@dataclass
class Early:
    """A node's sender and client before a service."""

    service: EarlyService
    bundle: ModelBundle
    client: InferenceClient
    sender: EarlySender
    events: list[Any] = field(default_factory=list)

    def arrive(self, paths: Sequence[Path]) -> None:
        """Note files as the listener does, and wait until the sender has seen them all."""
        for path in paths:
            self.sender.note(received(path))
        wait_until(lambda: self.sender.is_idle, what="the sender's rest")

    def read(self, paths: Sequence[Path]) -> Reading:
        headers = tuple(read_header(path) for path in paths)
        return read_series(self.bundle, headers, self.client.infer, max_bytes=1 << 30)

    def named(self, event: str) -> list[Any]:
        return [item for item in self.events if item["event"] == event]

    def is_clean(self) -> bool:
        """Tell whether the service lends no more than what the node keeps for its next requests."""
        kept = []
        for transport in self.client._transports.values():
            pool = transport._pool
            kept += [item for item in [*pool._free, *pool._let_go] if not (item.is_released or item.lease.is_ended)]
        return self.client.early.is_empty and self.service.leased.counts().regions == len(kept)


def received(path: Path) -> ReceivedInstance:
    header = read_header(path)
    return ReceivedInstance(
        header.sop,
        header.study_uid,
        header.series_uid,
        header.transfer_syntax,
        "CT1",
        path,
        "0" * 64,
        datetime.now(UTC),
    )


@contextmanager
def early_node(
    directory: Path,
    *,
    manifests: Sequence[ModelManifest] = (),
    terms: EarlyTerms = TERMS,
    limits: RegionLimits | None = None,
    **settings: Any,
) -> Iterator[Early]:
    bundles = [manifest_bundle(directory / "models", item) for item in manifests or (threshold_manifest(),)]
    with early_service(limits) as service, capture_logs() as events:
        client = InferenceClient(
            InferenceSettings(endpoint=service.address, **{"regions": "upload", "deadline_s": 20.0, **settings})
        )
        sender = EarlySender(client, bundles, terms)
        sender.start()
        try:
            yield Early(service, bundles[0], client, sender, events)
        finally:
            sender.stop()
            client.close()


def voxels_of(slices: int, dtype: type = np.int16, *, most: int = 1000, seed: int = 3) -> np.ndarray[Any, Any]:
    least = -1000 if np.dtype(dtype).kind == "i" else 0
    return np.random.default_rng(seed).integers(least, most, (slices, SIZE, SIZE)).astype(dtype)


def series(directory: Path, slices: int = 8, **plan: Any) -> list[Path]:
    seed = plan.pop("seed", 1)
    return write_series(SeriesPlan(voxels_of(slices, seed=seed), shuffle=True, seed=seed, **plan), directory)


def without_early(early: Early, paths: Sequence[Path]) -> Reading:
    """Read the same series as it would be without anything sent early."""
    client = InferenceClient(InferenceSettings(endpoint=early.service.address, regions="off"))
    try:
        headers = tuple(read_header(path) for path in paths)
        return read_series(early.bundle, headers, client.infer, max_bytes=1 << 30)
    finally:
        client.close()


def assert_same_as_without(early: Early, reading: Reading, paths: Sequence[Path]) -> None:
    """Hold a reading, and the image that the model saw for it, against those of a request in one message."""
    seen = early.service.ledger.images[-1]
    plain = without_early(early, paths)
    np.testing.assert_array_equal(early.service.ledger.images[-1], seen)
    for name, expected in plain.prediction.outputs.items():
        np.testing.assert_array_equal(reading.prediction.outputs[name], expected)
    assert reading.findings.items == plain.findings.items
    np.testing.assert_array_equal(reading.findings.labels, plain.findings.labels)


def test_slices_are_there_before_the_series_is_whole(tmp_path: Path) -> None:
    with early_node(tmp_path) as early:
        paths = series(tmp_path / "series")
        early.arrive(paths[:-1])
        wait_until(lambda: early.service.ledger.uploads == [7 * SLICE_BYTES], what="seven slices at the service")
        reading = early.read(paths)
        assert early.service.ledger.uploads == [8 * SLICE_BYTES], "a second upload was made"
        assert_same_as_without(early, reading, paths)
        (used,) = early.named("volume_uploaded_early")
        assert (used["count"], used["bytes_early"], used["bytes_late"]) == (8, 7 * SLICE_BYTES, SLICE_BYTES)
        assert early.is_clean()
        assert early.named("early_upload_dropped") == []


ORIENTATIONS = {
    "axial": (1, 0, 0, 0, 1, 0),
    "axial from the head": (1, 0, 0, 0, -1, 0),
    "axial, columns to the right": (-1, 0, 0, 0, 1, 0),
    "axial, rows and columns changed": (0, 1, 0, 1, 0, 0),
}


@pytest.mark.parametrize("axes", ["SPL", "IAR"])
@pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS.keys())
def test_any_turn_within_the_plane_is_made_slice_by_slice(
    tmp_path: Path, axes: str, orientation: tuple[float, ...]
) -> None:
    wanted = threshold_manifest()
    wanted = wanted.model_copy(update={"accepts": wanted.accepts.model_copy(update={"axes": axes})})
    with early_node(tmp_path, manifests=[wanted]) as early:
        plan = SeriesPlan(voxels_of(6)[:, :, :-5], shuffle=True, orientation=orientation)
        paths = write_series(plan, tmp_path / "series")
        early.arrive(paths)
        reading = early.read(paths)
        assert [item["bytes_late"] for item in early.named("volume_uploaded_early")] == [0]
        assert_same_as_without(early, reading, paths)


STORED = {
    "12 bits unsigned": (np.uint16, 4095, 12, "INT16", 1),
    "15 bits unsigned": (np.uint16, 32767, 15, "INT16", 1),
    "16 bits unsigned below 32768": (np.uint16, 32000, 16, "INT16", 0),
    "16 bits unsigned": (np.uint16, 65535, 16, "INT16", 0),
    "16 bits as they are": (np.uint16, 65535, 16, "UINT16", 1),
    "bytes": (np.uint8, 255, 8, "INT16", 1),
    "as decimals": (np.int16, 1000, 16, "FP32", 1),
}


@pytest.mark.parametrize(("dtype", "most", "bits", "datatype", "early_volumes"), STORED.values(), ids=STORED.keys())
def test_only_values_whose_bytes_are_certain_are_sent_early(
    tmp_path: Path, dtype: type, most: int, bits: int, datatype: str, early_volumes: int
) -> None:
    manifest = threshold_manifest()
    image = manifest.inputs[0].model_copy(update={"datatype": datatype})
    manifest = manifest.model_copy(update={"inputs": (image, *manifest.inputs[1:])})
    with early_node(tmp_path, manifests=[manifest]) as early:
        attributes = {"BitsStored": bits, "HighBit": bits - 1}
        plan = SeriesPlan(voxels_of(5, dtype, most=most), shuffle=True, attributes=attributes)
        paths = write_series(plan, tmp_path / "series")
        early.arrive(paths)
        reading = early.read(paths)
        assert len(early.named("volume_uploaded_early")) == early_volumes
        assert_same_as_without(early, reading, paths)


REFUSED = {
    "sagittal": {"orientation": (0, 1, 0, 0, 0, -1)},
    "another modality": {"attributes": {"Modality": "PT"}},
    "localizer": {"attributes": {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}},
    "phases": {"attributes": {"NumberOfTemporalPositions": 2}},
    "no frame of reference": {"attributes": {"FrameOfReferenceUID": ""}},
    "MONOCHROME1": {"attributes": {"PhotometricInterpretation": "MONOCHROME1"}},
}


@pytest.mark.parametrize("plan", REFUSED.values(), ids=REFUSED.keys())
def test_what_no_model_can_take_in_slices_is_not_sent(tmp_path: Path, plan: dict[str, Any]) -> None:
    with early_node(tmp_path) as early:
        early.arrive(series(tmp_path / "series", **plan))
        assert early.service.ledger.uploads == []
        assert early.service.leased.counts().created == 0


def test_duplicates_and_strays_do_not_reach_the_tensor(tmp_path: Path) -> None:
    """A slice sent twice is one slot; one that the volume does not hold is left out by the permutation."""
    with early_node(tmp_path) as early:
        paths = series(tmp_path / "series", 9)
        early.arrive([*paths[:5], *paths[:5], *paths[5:]])
        ends = {paths[at] for at in np.argsort([read_header(path).position[2] for path in paths])[[0, -1]]}
        kept = [path for path in paths if path not in ends]
        reading = early.read(kept)
        assert early.service.ledger.uploads == [9 * SLICE_BYTES]
        assert [item["count"] for item in early.named("volume_uploaded_early")] == [7]
        assert_same_as_without(early, reading, kept)
        assert early.is_clean()


def test_two_series_in_turn_each_become_their_own_volume(tmp_path: Path) -> None:
    with early_node(tmp_path) as early:
        one, two = (series(tmp_path / f"series{seed}", 6, seed=seed) for seed in (1, 2))
        early.arrive([path for pair in zip(one, two, strict=True) for path in pair])
        for paths in (two, one):
            assert_same_as_without(early, early.read(paths), paths)
        assert [item["bytes_late"] for item in early.named("volume_uploaded_early")] == [0, 0]
        assert early.is_clean()


def test_a_third_series_waits_while_two_grow_and_takes_the_place_of_a_quiet_one(tmp_path: Path) -> None:
    with early_node(tmp_path) as early:
        every = [series(tmp_path / f"series{seed}", 6, seed=seed) for seed in (1, 2, 3)]
        for paths in every:
            early.arrive(paths[:3])
        assert len(early.named("early_upload_begun")) == 2
        clock = early.client.early._clock
        early.client.early._clock = lambda: clock() + 60
        early.arrive(every[1][3:4])
        early.arrive(every[2][3:])
        assert [item["reason"] for item in early.named("early_upload_dropped")] == ["another series needs its place"]
        early.arrive(every[0][3:])
        for paths in every:
            assert_same_as_without(early, early.read(paths), paths)
        used = early.named("volume_uploaded_early")
        assert [item["series_uid"] for item in used] == [read_header(paths[0]).series_uid for paths in every[1:]]
        assert [item["bytes_late"] for item in used] == [2 * SLICE_BYTES, 0]
        assert early.is_clean()


def test_a_slice_that_comes_late_makes_the_next_volume_whole_without_the_first_upload(tmp_path: Path) -> None:
    with early_node(tmp_path) as early:
        paths = series(tmp_path / "series", 8)
        order = np.argsort([read_header(path).position[2] for path in paths])
        late = paths[order[-1]]
        first = [path for path in paths if path != late]
        early.arrive(first)
        assert_same_as_without(early, early.read(first), first)
        early.arrive([late])
        assert_same_as_without(early, early.read(paths), paths)
        assert [item["count"] for item in early.named("volume_uploaded_early")] == [7]
        assert early.is_clean()


def test_an_upload_that_was_not_asked_for_serves_the_generation_with_the_late_slice(tmp_path: Path) -> None:
    with early_node(tmp_path) as early:
        paths = series(tmp_path / "series", 8)
        early.arrive(paths[:7])
        early.arrive(paths[7:])
        assert_same_as_without(early, early.read(paths), paths)
        assert [item["bytes_late"] for item in early.named("volume_uploaded_early")] == [0]


@pytest.mark.parametrize("moment", ["between slices", "before the request"])
def test_a_service_that_is_started_again_gets_the_volume_whole(tmp_path: Path, moment: str) -> None:
    with early_node(tmp_path) as early:
        paths = series(tmp_path / "series", 8)
        early.arrive(paths[:4])
        if moment == "before the request":
            early.arrive(paths[4:])
        early.service.restart()
        if moment == "between slices":
            early.arrive(paths[4:])
        assert_same_as_without(early, early.read(paths), paths)
        assert early.named("volume_uploaded_early") == []
        assert early.is_clean()


def test_a_lease_that_ends_takes_the_upload_with_it(tmp_path: Path) -> None:
    with early_node(tmp_path) as early:
        paths = series(tmp_path / "series", 8)
        early.arrive(paths[:4])
        lease = early.client._transports[early.client.endpoints[0]]._pool._lease
        lease._call.cancel()
        wait_until(lambda: lease.is_ended, what="the end of the lease")
        early.arrive(paths[4:])
        assert_same_as_without(early, early.read(paths), paths)
        assert early.named("volume_uploaded_early") == []
        assert early.is_clean()


def test_an_expired_region_is_not_used(tmp_path: Path) -> None:
    with early_node(tmp_path) as early:
        paths = series(tmp_path / "series", 8)
        early.arrive(paths)
        for region in early.service.leased._regions.values():
            region.expires_at = 0.0
        early.service.leased.sweep()
        assert_same_as_without(early, early.read(paths), paths)
        assert [item["count"] for item in early.named("early_upload_dropped")] == [8]
        assert early.is_clean()


def test_one_wrong_bit_on_the_way_costs_a_second_upload_and_nothing_else(tmp_path: Path) -> None:
    with early_node(tmp_path) as early:
        paths = series(tmp_path / "series", 8)

        def flip(chunk: Chunk) -> Chunk:
            if chunk.head.slot == 3 and chunk.chunk:
                return replace(chunk, chunk=bytes([chunk.chunk[0] ^ 1, *chunk.chunk[1:]]))
            return chunk

        early.service.ledger.change = flip
        early.arrive(paths)
        wait_until(lambda: early.service.ledger.uploads == [8 * SLICE_BYTES], what="the slices")
        early.service.ledger.change = lambda request: request
        assert_same_as_without(early, early.read(paths), paths)
        (dropped,) = early.named("early_upload_dropped")
        assert "crc32" in dropped["reason"]
        assert early.service.ledger.uploads == [8 * SLICE_BYTES] * 2
        assert early.is_clean()


def test_a_file_that_changed_after_it_was_sent_is_seen(tmp_path: Path) -> None:
    """The volume is what counts: it is built from the files as they are when the study is ready."""
    with early_node(tmp_path) as early:
        paths = series(tmp_path / "series", 6)
        early.arrive(paths)
        header = read_header(paths[2])
        content = bytearray(paths[2].read_bytes())
        content[header.pixel_offset] ^= 1
        paths[2].write_bytes(content)
        assert_same_as_without(early, early.read(paths), paths)
        assert early.named("volume_uploaded_early") == []


def test_a_service_that_reads_nothing_holds_up_nobody_but_the_early_upload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(early_upload_module, "_PATIENCE_S", 0.3)
    monkeypatch.setattr(early_upload_module, "_GIVE_UP_S", 0.1)
    monkeypatch.setattr(early_upload_module, "_MESSAGES_MOST", 2)
    with early_node(tmp_path) as early:
        paths = write_series(SeriesPlan(np.full((32, 512, 512), 7, np.int16), shuffle=True), tmp_path / "series")
        early.service.ledger.gate.clear()
        for path in paths:
            early.sender.note(received(path))  # returns whatever the sender does
        wait_until(lambda: early.named("early_upload_dropped"), what="the upload to be given up")
        assert "took nothing" in early.named("early_upload_dropped")[0]["reason"]
        early.service.ledger.gate.set()
        assert_same_as_without(early, early.read(paths), paths)


def test_more_records_than_the_queue_holds_are_skipped_and_sent_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender_module, "RECORDS_MOST", 3)
    with early_node(tmp_path) as early:
        paths = series(tmp_path / "series", 8)
        held = early.client.early._lock
        with held:
            for path in paths:
                early.sender.note(received(path))
            assert early.named("instance_skipped_early")
        early.arrive([])
        assert_same_as_without(early, early.read(paths), paths)
        late = [item["bytes_late"] for item in early.named("volume_uploaded_early")]
        assert len(late) == 1
        assert 0 < late[0] < 8 * SLICE_BYTES


def test_a_series_longer_than_the_room_is_sent_whole(tmp_path: Path) -> None:
    with early_node(tmp_path, terms=replace(TERMS, slices=5)) as early:
        paths = series(tmp_path / "series", 8)
        early.arrive(paths)
        assert [item["reason"] for item in early.named("early_upload_dropped")] == ["more than 5 slices"]
        assert_same_as_without(early, early.read(paths), paths)
        assert early.is_clean()


def test_images_beyond_those_that_wait_for_the_beginning_are_sent_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender_module, "WAITING_MOST", 3)
    with early_node(tmp_path, terms=replace(TERMS, least_bytes=5 * SLICE_BYTES)) as early:
        paths = series(tmp_path / "series", 8)
        early.arrive(paths)
        assert_same_as_without(early, early.read(paths), paths)
        assert [item["bytes_late"] for item in early.named("volume_uploaded_early")] == [3 * SLICE_BYTES]


def test_a_header_that_states_more_images_gets_more_room(tmp_path: Path) -> None:
    with early_node(tmp_path, terms=replace(TERMS, slices=5)) as early:
        paths = series(tmp_path / "series", 8, attributes={"ImagesInAcquisition": 8})
        early.arrive(paths)
        assert_same_as_without(early, early.read(paths), paths)
        assert [item["bytes_late"] for item in early.named("volume_uploaded_early")] == [0]


def test_images_that_differ_end_the_upload(tmp_path: Path) -> None:
    with early_node(tmp_path) as early:
        paths = series(tmp_path / "series", 6)
        odd = series(tmp_path / "odd", 6, attributes={"Rows": SIZE // 2, "Columns": SIZE * 2})
        early.arrive([*paths[:4], odd[5], *paths[4:]])
        assert [item["reason"] for item in early.named("early_upload_dropped")] == ["its images differ"]
        assert early.is_clean()


def test_a_region_held_early_gives_way_to_a_volume_that_is_whole(tmp_path: Path) -> None:
    room = 2 << 20  # one early region of 1 MiB and one of a request; the answer's needs the first one's place
    with early_node(tmp_path, limits=RegionLimits(client_quota_bytes=room)) as early:
        waiting, whole = (series(tmp_path / f"series{seed}", 6, seed=seed) for seed in (1, 2))
        early.arrive(waiting)
        reading = early.read(whole)
        assert [item["reason"] for item in early.named("early_upload_dropped")] == ["the service has no room beside it"]
        assert early.named("region_refused") == []
        assert_same_as_without(early, reading, whole)
        assert_same_as_without(early, early.read(waiting), waiting)
        assert early.is_clean()


def test_a_service_that_refuses_a_request_for_want_of_room_gets_it(tmp_path: Path) -> None:
    with early_node(tmp_path) as early:
        waiting, whole = (series(tmp_path / f"series{seed}", 6, seed=seed) for seed in (1, 2))
        early.arrive(waiting)
        early.service.ledger.is_full = True
        with pytest.raises(InferenceUnavailable):
            early.read(whole)
        assert early.is_clean()
        early.service.ledger.is_full = False
        assert_same_as_without(early, early.read(whole), whole)


def test_what_no_model_took_is_given_up_when_the_last_has_judged(tmp_path: Path) -> None:
    manifests = [threshold_manifest(), threshold_manifest(name="another")]
    with early_node(tmp_path, manifests=manifests) as early:
        study = {"StudyInstanceUID": "2.25.4711"}
        one, two = (series(tmp_path / f"series{seed}", 6, seed=seed, attributes=study) for seed in (1, 2))
        early.arrive([*one, *two])
        uids = [read_header(paths[0]) for paths in (one, two)]
        early.client.early.judged(uids[0].study_uid, ("bright_regions", "1"), None)
        assert early.named("early_upload_dropped") == []
        early.client.early.judged(uids[1].study_uid, ("another", "1"), uids[1].series_uid)
        assert [item["series_uid"] for item in early.named("early_upload_dropped")] == [uids[0].series_uid]
        assert early.service.leased.counts().regions == 1
        assert_same_as_without(early, early.read(two), two)
        assert early.is_clean()


def test_an_upload_that_nobody_asks_for_expires(tmp_path: Path) -> None:
    with early_node(tmp_path, terms=replace(TERMS, idle_s=0.2)) as early:
        early.arrive(series(tmp_path / "series", 6))
        wait_until(lambda: early.named("early_upload_dropped"), what="the end of the upload")
        assert "no model asked for" in early.named("early_upload_dropped")[0]["reason"]
        wait_until(early.is_clean, what="the end of the region")


def test_a_node_that_stops_leaves_no_region(tmp_path: Path) -> None:
    with early_node(tmp_path) as early:
        early.arrive(series(tmp_path / "series", 6))
        assert not early.is_clean()
        early.sender.stop()
        assert early.is_clean()


def test_nothing_is_sent_early_to_a_service_whose_memory_is_shared(tmp_path: Path) -> None:
    with early_node(tmp_path, regions="auto") as early:
        paths = series(tmp_path / "series", 8)
        early.arrive(paths)
        assert_same_as_without(early, early.read(paths), paths)
        assert early.service.ledger.uploads == []
        assert [item for item in early.events if "early" in item["event"]] == []


def test_where_mapping_fails_a_series_is_begun_once_it_is_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(_granted: object) -> None:
        raise RegionUnreachable("another host")

    monkeypatch.setattr(region_pool, "map_region", unreachable)
    terms = replace(TERMS, least_bytes=UPLOAD_FROM_BYTES)
    with early_node(tmp_path, regions="auto", terms=terms) as early:
        paths = write_series(SeriesPlan(np.full((12, 512, 512), 7, np.int16), shuffle=True), tmp_path / "series")
        early.arrive(paths[:8])  # 4 MiB: a message would do
        assert early.service.ledger.uploads == []
        early.arrive(paths[8:])
        assert_same_as_without(early, early.read(paths), paths)
        assert [item["bytes_late"] for item in early.named("volume_uploaded_early")] == [0]
        assert early.is_clean()


def test_a_volume_that_is_small_in_the_end_goes_by_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with early_node(tmp_path) as early:
        paths = series(tmp_path / "series", 9)
        early.arrive(paths)
        monkeypatch.setattr(Transport, "_is_for_region", lambda *_: False)
        assert_same_as_without(early, early.read(paths), paths)
        assert [item["reason"] for item in early.named("early_upload_dropped")] == ["the volume went another way"]
        assert early.is_clean()


def test_the_endpoint_that_has_the_slices_is_asked_first(tmp_path: Path) -> None:
    with early_service() as other, early_node(tmp_path) as early:
        both = InferenceSettings(endpoints=(other.address, early.service.address), regions="upload")
        client = InferenceClient(both)
        client._early_rotation = Rotation(client.endpoints[1:])
        sender = EarlySender(client, [early.bundle], TERMS)
        sender.start()
        try:
            for seed in (1, 2):
                paths = series(tmp_path / f"series{seed}", 6, seed=seed)
                again = replace(early, client=client, sender=sender)
                again.arrive(paths)
                assert_same_as_without(again, again.read(paths), paths)
        finally:
            sender.stop()
            client.close()
        assert other.ledger.images == []
        assert len(early.named("volume_uploaded_early")) == 2


def test_another_endpoint_gets_the_volume_whole_where_the_first_is_gone(tmp_path: Path) -> None:
    with early_service() as other, early_node(tmp_path) as early:
        client = InferenceClient(InferenceSettings(endpoints=(early.service.address, other.address), regions="upload"))
        sender = EarlySender(client, [early.bundle], TERMS)
        sender.start()
        try:
            paths = series(tmp_path / "series", 6)
            there = replace(early, client=client, sender=sender)
            there.arrive(paths)
            early.service.stop()
            reading = there.read(paths)
        finally:
            sender.stop()
            client.close()
        replaced = replace(early, service=other)
        assert_same_as_without(replaced, reading, paths)
        assert early.named("volume_uploaded_early") == []


def test_a_service_without_room_is_asked_again_later(tmp_path: Path) -> None:
    with early_node(tmp_path, limits=RegionLimits(region_max_bytes=4096)) as early:
        paths = series(tmp_path / "series", 8)
        early.arrive(paths)
        (declined,) = early.named("early_upload_declined")
        assert declined["seconds"] == sender_module.PAUSE_S
        assert_same_as_without(early, early.read(paths), paths)


def test_damaged_and_foreign_files_disturb_no_one(tmp_path: Path) -> None:
    with early_node(tmp_path) as early:
        paths = series(tmp_path / "series", 8)
        torn = tmp_path / "torn.dcm"
        torn.write_bytes(b"no DICOM")
        gone = replace(received(paths[0]), path=tmp_path / "gone.dcm")
        early.arrive(paths[:4])
        early.sender.note(replace(received(paths[0]), path=torn))
        early.sender.note(gone)
        early.arrive(paths[4:])
        assert_same_as_without(early, early.read(paths), paths)
        assert [item["bytes_late"] for item in early.named("volume_uploaded_early")] == [0]


def test_the_checksum_is_that_of_the_tensor_s_bytes() -> None:
    voxels = voxels_of(5)[::-1, ::-1, ::2]
    assert early_upload_module.crc32_of(voxels) == zlib.crc32(np.ascontiguousarray(voxels).tobytes())


def test_headers_that_differ_only_in_place_are_of_one_kind(tmp_path: Path) -> None:
    kinds = {sender_module.kind_of(read_header(path)) for path in series(tmp_path / "series", 4)}
    assert len(kinds) == 1
    assert isinstance(kinds.pop(), ImageHeader)
