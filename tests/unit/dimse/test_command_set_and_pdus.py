import socket
import struct
from contextlib import suppress
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.dimse_messages import C_STORE_RQ, C_STORE_RSP
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import decode, encode

from node.dimse.associate import decode_request
from node.dimse.command_set import Command, encode_response, parse_command
from node.dimse.pdu_stream import Pdu, PduStream, PduType, encode_command_pdus, split_pdvs
from node.errors import AssociationError
from tests.raw_peer import associate_request, p_data

COMMAND = Command(1, 7, "1.2.840.10008.5.1.4.1.1.2", "1.2.3", has_data_set=True)


def test_command_that_pynetdicom_writes_is_read() -> None:
    primitive = C_STORE()
    primitive.MessageID = 7
    primitive.AffectedSOPClassUID = COMMAND.sop_class_uid
    primitive.AffectedSOPInstanceUID = COMMAND.sop_instance_uid
    primitive.Priority = 2
    primitive.DataSet = BytesIO(b"x")
    message = C_STORE_RQ()
    message.primitive_to_message(primitive)
    written = encode(message.command_set, is_implicit_vr=True, is_little_endian=True) or b""
    assert parse_command(written) == COMMAND


def test_response_is_read_by_pynetdicom() -> None:
    message = C_STORE_RSP()
    encoded = encode_response(COMMAND, 0xC001, "Grüße\\" + "x" * 80)
    message.command_set = decode(BytesIO(encoded), is_implicit_vr=True, is_little_endian=True)
    assert message.command_set.Status == 0xC001
    assert message.command_set.CommandField == 0x8001
    assert message.command_set.MessageIDBeingRespondedTo == 7
    assert message.command_set.AffectedSOPInstanceUID == "1.2.3"
    assert message.command_set.ErrorComment == ("Gr??e?" + "x" * 80)[:64]
    assert message.command_set.CommandGroupLength == len(encoded) - 12


@given(st.binary(max_size=200))
def test_any_bytes_are_a_command_or_refused(rubbish: bytes) -> None:
    with suppress(AssociationError):
        assert isinstance(parse_command(rubbish), Command)


@given(st.binary(max_size=200))
def test_any_bytes_are_pdvs_or_refused(rubbish: bytes) -> None:
    with suppress(AssociationError):
        assert sum(6 + len(pdv.fragment) for pdv in split_pdvs(memoryview(rubbish))) == len(rubbish)


@given(st.binary(min_size=1, max_size=500), st.integers(0, 100))
def test_command_pdus_respect_the_limit_of_the_peer(command_set: bytes, peer_limit: int) -> None:
    encoded = encode_command_pdus(3, command_set, peer_limit=peer_limit)
    whole, position = b"", 0
    while position < len(encoded):
        length = struct.unpack_from(">I", encoded, position + 2)[0]
        assert not peer_limit or length <= max(peer_limit, 8)
        (pdv,) = split_pdvs(memoryview(encoded)[position + 6 : position + 6 + length])
        whole += pdv.fragment
        position += 6 + length
        assert (pdv.context_id, pdv.is_command, pdv.is_last) == (3, True, position == len(encoded))
    assert whole == command_set


def test_stream_gives_pdus_whole_and_the_end() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stream = PduStream(ours, p_data_limit=1 << 14)
        sent = p_data(bytes(300_000)) + p_data(b"second")
        theirs.settimeout(5)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        theirs.sendall(sent[:100_000])
        stream_read = []
        import threading

        sender = threading.Thread(target=lambda: (theirs.sendall(sent[100_000:]), theirs.shutdown(socket.SHUT_WR)))
        sender.start()
        while (pdu := stream.read(idle_s=5, whole_s=5)) is not None:
            stream_read.append((pdu.type, len(pdu.body)))
        sender.join()
    assert stream_read == [(PduType.P_DATA, 300_006), (PduType.P_DATA, 12)]


def test_silence_and_slowness_time_out() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stream = PduStream(ours, p_data_limit=1 << 14)
        with pytest.raises(TimeoutError):
            stream.read(idle_s=0.05, whole_s=5)
        theirs.sendall(p_data(b"cut")[:-1])
        with pytest.raises(TimeoutError):
            stream.read(idle_s=5, whole_s=0.05)


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI", "ignore:The value length")
@given(st.integers(0, 300), st.integers(0, 255))
def test_changed_association_request_is_read_or_refused(position: int, value: int) -> None:
    changed = bytearray(associate_request())
    changed[6 + position % (len(changed) - 6)] = value
    pdu = Pdu(PduType.ASSOCIATE_RQ, bytes(changed[:6]), memoryview(changed)[6:])
    with suppress(AssociationError):
        assert decode_request(pdu).contexts
