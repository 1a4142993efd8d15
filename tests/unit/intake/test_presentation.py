from pydicom._uid_dict import UID_dictionary
from pynetdicom import AllStoragePresentationContexts, build_context

from node.intake.presentation import (
    TRANSFER_SYNTAXES,
    VERIFICATION,
    storage_classes,
    supported_contexts,
)

STORAGE = "1.2.840.10008.5.1.4.1.1."


def accepted(*uids: str, unknown: bool = False) -> set[str]:
    contexts = supported_contexts([build_context(uid) for uid in uids], unknown_sop_classes=unknown)
    return {str(context.abstract_syntax) for context in contexts}


def test_every_storage_class_that_pynetdicom_and_the_standard_know_is_accepted() -> None:
    pynetdicom = {str(context.abstract_syntax) for context in AllStoragePresentationContexts}
    standard = {uid for uid, entry in UID_dictionary.items() if entry[1] == "SOP Class" and uid.startswith(STORAGE)}
    assert accepted(*pynetdicom) == pynetdicom
    # Application-specific query and print classes live under the same root without "Storage" in the name.
    assert {uid for uid in standard if "Storage" in UID_dictionary[uid][0]} <= storage_classes()
    # Retired ones that pynetdicom's list lacks.
    assert {STORAGE + "3", STORAGE + "5", STORAGE + "6", STORAGE + "12.3"} <= storage_classes() - pynetdicom


def test_services_that_are_no_storage_are_not() -> None:
    others = ("1.2.840.10008.1.3.10", "1.2.840.10008.1.20.1", "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.31")
    assert accepted(*others, unknown=True) == set()
    assert accepted(VERIFICATION) == {VERIFICATION}


def test_private_classes_are_a_matter_of_settings() -> None:
    assert accepted("1.2.826.0.1.99") == set()
    assert accepted("1.2.826.0.1.99", unknown=True) == {"1.2.826.0.1.99"}


def test_every_context_offers_all_syntaxes_once_in_our_order() -> None:
    (context,) = supported_contexts([build_context(STORAGE + "2")], unknown_sop_classes=False)
    assert tuple(context.transfer_syntax) == TRANSFER_SYNTAXES
    assert len(set(TRANSFER_SYNTAXES)) == len(TRANSFER_SYNTAXES)
