"""Derived UIDs and keys: pure, unique by role, valid."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID

from node.domain.prediction import ModelIdentity
from node.results import uids

texts = st.text(max_size=40)
MODEL = ModelIdentity("lung_nodule", "2", "Lung nodules", "Hilum", "ab" * 32, "digest")
ORIGIN = uids.ResultOrigin("1.2.3", "1.2.4", "cd" * 32, MODEL, "ef" * 32, "standard")


@given(texts, st.lists(texts, max_size=4))
def test_a_derived_uid_is_valid_and_pure(role: str, inputs: list[str]) -> None:
    uid = uids.derived_uid(role, *inputs)
    assert UID(uid).is_valid
    assert len(uid) <= 64
    assert uids.is_derived_uid(uid)
    assert uid == uids.derived_uid(role, *inputs)


@given(st.lists(texts.filter(lambda text: "\x1f" not in text), min_size=1, max_size=4, unique=True))
def test_different_roles_and_inputs_give_different_uids(parts: list[str]) -> None:
    made = {uids.derived_uid("series", *parts), uids.derived_uid("instance", *parts)}
    made.add(uids.derived_uid("series", *parts, "more"))
    assert len(made) == 3


@given(st.sampled_from(["1.2.3", "2.25.", "2.25.x", "2.25.007", f"2.25.{1 << 128}", "2.25.12", ""]))
def test_foreign_uids_are_not_taken_for_derived_ones(uid: str) -> None:
    assert not uids.is_derived_uid(uid)


def test_the_series_outlives_a_generation_and_the_instance_does_not() -> None:
    later = replace(ORIGIN, generation="00" * 32)
    assert uids.series_uid(ORIGIN, "SR") == uids.series_uid(later, "SR")
    assert uids.sop_instance_uid(ORIGIN, "SR", 1) != uids.sop_instance_uid(later, "SR", 1)


def test_each_input_of_the_key_changes_it() -> None:
    others = [
        replace(ORIGIN, study_uid="1.2.9"),
        replace(ORIGIN, source_series_uid="1.2.9"),
        replace(ORIGIN, generation="00" * 32),
        replace(ORIGIN, settings_digest="00" * 32),
        replace(ORIGIN, profile="ohif"),
        replace(ORIGIN, model=replace(MODEL, version="3")),
        replace(ORIGIN, model=replace(MODEL, digest="00" * 32)),
    ]
    keys = {uids.evidence_key(origin, 1) for origin in [ORIGIN, *others]} | {uids.evidence_key(ORIGIN, 2)}
    assert len(keys) == len(others) + 2
    assert uids.evidence_key(ORIGIN, 1) == uids.evidence_key(replace(ORIGIN), 1)


def test_kinds_profiles_and_revisions_have_their_own_instances() -> None:
    made = {
        uids.sop_instance_uid(ORIGIN, "SR", 1),
        uids.sop_instance_uid(ORIGIN, "SEG", 1),
        uids.sop_instance_uid(ORIGIN, "SEG", 2),
        uids.sop_instance_uid(ORIGIN, "SEG", 1, ordinal=2),
        uids.sop_instance_uid(replace(ORIGIN, profile="ohif"), "SEG", 1),
    }
    assert len(made) == 5


def test_the_device_changes_with_every_retraining() -> None:
    assert uids.device_uid("ab") != uids.device_uid("cd")


def test_a_tracking_uid_is_never_used_again_for_what_may_be_another_lesion() -> None:
    others = [
        ORIGIN,
        replace(ORIGIN, study_uid="1.2.9"),
        replace(ORIGIN, source_series_uid="1.2.9"),
        replace(ORIGIN, generation="00" * 32),
        replace(ORIGIN, model=replace(MODEL, digest="00" * 32)),
    ]
    made = {uids.tracking_uid(origin, ordinal) for origin in others for ordinal in (1, 2)}
    made |= {uids.class_tracking_uid(origin, ordinal) for origin in others for ordinal in (1, 2)}
    assert len(made) == 4 * len(others)
    assert uids.tracking_uid(ORIGIN, 1) == uids.tracking_uid(replace(ORIGIN, settings_digest="00" * 32), 1)


def test_uids_stay_what_they_are_between_releases() -> None:
    assert uids.derived_uid("series", "a", "b") == "2.25.289174797161893165869244621522931615094"
