"""C-ECHO as SCU (PS3.4 A): is a destination there, and does it know us?"""

import time
from dataclasses import dataclass

from pynetdicom.presentation import build_context

from node.delivery.association import open_line, peer_text
from node.errors import DeliveryError
from node.settings import Destination

VERIFICATION = "1.2.840.10008.1.1"


@dataclass(frozen=True, slots=True)
class EchoOutcome:
    """What came of a C-ECHO."""

    answered: bool
    """The peer took the association and answered 0000."""
    text: str
    """A sentence with destination, address and what happened."""
    seconds: float


def c_echo(destination: Destination, calling_ae_title: str) -> EchoOutcome:
    """Open an association to `destination` and verify it; never raises for what the peer or the network does."""
    begun = time.monotonic()
    try:
        with (
            open_line(destination, calling_ae_title, [build_context(VERIFICATION)]) as line,
            line.within(destination.timeout_s),
        ):
            answer = line.association.send_c_echo()
    except DeliveryError as error:
        return EchoOutcome(answered=False, text=str(error), seconds=time.monotonic() - begun)
    except RuntimeError:
        text = f"{peer_text(destination)} ended the association before the C-ECHO"
        return EchoOutcome(answered=False, text=text, seconds=time.monotonic() - begun)
    seconds = time.monotonic() - begun
    if "Status" not in answer:
        return EchoOutcome(answered=False, text=f"{peer_text(destination)} gave no answer to C-ECHO", seconds=seconds)
    text = f"{peer_text(destination)} answered {answer.Status:04X} in {seconds * 1000:.0f} ms"
    return EchoOutcome(answered=answer.Status == 0, text=text, seconds=seconds)
