"""What a peer's C-STORE answer means for a delivery (PS3.4 B.2.3, PS3.7 C)."""

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["SENT", "DELAYED", "REFUSED"]

SUCCESS = 0x0000
_WARNINGS = {
    0xB000: "stored, with values coerced by the peer",
    0xB006: "stored, with elements discarded by the peer",
    0xB007: "stored, though the peer finds that the data set does not match its SOP class",
}
_DELAYS = {0x0110: "processing failure", 0x0213: "resource limitation"}
_REFUSALS = {
    0x0105: "no such attribute",
    0x0106: "invalid attribute value",
    0x0111: "duplicate SOP instance: the peer says it holds one already, look there whether it is ours",
    0x0117: "invalid SOP instance",
    0x0122: "SOP class not supported",
    0x0124: "not authorized",
    0x0210: "duplicate invocation",
    0x0211: "unrecognized operation",
    0x0212: "mistyped argument",
}


@dataclass(frozen=True, slots=True)
class SendResult:
    """How one object fared in one attempt."""

    sop_instance_uid: str
    outcome: Outcome
    """SENT only on the peer's own word; DELAYED where another attempt may succeed; REFUSED where none will."""
    status: int | None
    """The peer's DIMSE status; None where it gave none."""
    comment: str
    """A sentence with destination, address, status and what it means: fit for the log."""
    peer_comment: str = ""
    """The peer's own words (Error Comment). They may name a patient: for the index alone, never for the log."""

    @property
    def full_comment(self) -> str:
        """The sentence with the peer's own words."""
        return with_words(self.comment, self.peer_comment)


def outcome_of(status: int) -> tuple[Outcome, str]:
    """Return what a C-STORE status means: 0000 and the three warnings are SENT, A7xx is DELAYED, the rest REFUSED."""
    if status == SUCCESS:
        return "SENT", "stored"
    if status in _WARNINGS:
        return "SENT", _WARNINGS[status]
    if status in _DELAYS or status & 0xFF00 == 0xA700:
        return "DELAYED", _DELAYS.get(status, "out of resources")
    if status & 0xFF00 == 0xA900:
        return "REFUSED", "data set does not match its SOP class"
    if status & 0xF000 == 0xC000:
        return "REFUSED", "cannot understand"
    return "REFUSED", _REFUSALS.get(status, "a status that C-STORE does not know")


def answer_text(peer: str, status: int) -> str:
    """Say an answer in one sentence: who, status, meaning."""
    return f"{peer} answered {status:04X}: {outcome_of(status)[1]}"


def with_words(comment: str, peer_comment: str) -> str:
    """Add the peer's own words, where it said any, to a sentence about its answer: for people, not for the log."""
    return comment + (f' ("{peer_comment}")' if peer_comment else "")


def printable(error_comment: str) -> str:
    """Return a peer's Error Comment (0000,0902) without control characters, at most the 64 that LO allows."""
    return "".join(sign for sign in error_comment if sign.isprintable()).strip()[:64]
