"""One Lease stream: regions in the service's memory, asked for, renewed and released in order."""

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

import grpc

from protos.tensor_regions_pb2 import LeaseRequest, LeaseResponse
from protos.tensor_regions_pb2_grpc import TensorRegionsStub

ANSWER_TIMEOUT_S = 10.0
_RENEWALS_PER_EXPIRY = 3
_DEFAULT_EXPIRY_S = 60
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class LeaseRefused(Exception):
    """The service gave no region, or the stream is gone; `code` says which."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        """Keep the status and the service's sentence."""
        super().__init__(f"{code.name}: {message[:300]}")
        self.code = code
        self.message = message[:300]


class Lease:
    """The stream with its regions; they live as long as it does. Safe to share between threads."""

    def __init__(self, stub: TensorRegionsStub, before_renewal: Callable[[], object] = lambda: None) -> None:
        """Open the stream; LeaseRefused where the channel is closed. `before_renewal` may release what is idle."""
        self._before_renewal = before_renewal
        self._requests: SimpleQueue[LeaseRequest | None] = SimpleQueue()
        self._answers: SimpleQueue[LeaseResponse | None] = SimpleQueue()
        self._turn = threading.Lock()
        self._ended = threading.Event()
        self._ending = (grpc.StatusCode.UNAVAILABLE, "the lease ended")
        self._renewal: threading.Thread | None = None
        try:
            self._call = stub.Lease(iter(self._requests.get, None))
        except ValueError as error:  # what gRPC raises on a closed channel
            raise LeaseRefused(grpc.StatusCode.UNAVAILABLE, "the channel is closed") from error
        threading.Thread(target=self._read, name="lease-reader", daemon=True).start()

    @property
    def is_ended(self) -> bool:
        """Tell whether the stream, and with it every region, is gone."""
        return self._ended.is_set()

    def create(self, byte_size: int, *, local: bool) -> LeaseResponse:
        """Ask for a region; LeaseRefused where the service gives none."""
        create = LeaseRequest.Create(byte_size=byte_size, local=local)
        granted = self._ask(LeaseRequest(create=create))
        if granted.byte_size < byte_size or not granted.name:
            raise LeaseRefused(grpc.StatusCode.INTERNAL, f"asked for {byte_size} bytes, got {granted.byte_size}")
        self._keep_renewing(granted.expires_after_s or _DEFAULT_EXPIRY_S)
        return granted

    def renew(self, name: str = "") -> None:
        """Keep a region, or with an empty name all, for another expiry; LeaseRefused where it is gone."""
        self._ask(LeaseRequest(renew=LeaseRequest.Renew(name=name)))

    def release(self, name: str) -> None:
        """Give a region up; one that is gone already is as good."""
        try:
            self._ask(LeaseRequest(release=LeaseRequest.Release(name=name)))
        except LeaseRefused:
            return

    def close(self) -> None:
        """End the stream; the service frees every region."""
        self._ended.set()
        self._call.cancel()
        self._requests.put(None)

    def _ask(self, request: LeaseRequest) -> LeaseResponse:
        with self._turn:
            if self._ended.is_set():
                raise LeaseRefused(*self._ending)
            self._requests.put(request)
            try:
                answer = self._answers.get(timeout=ANSWER_TIMEOUT_S)
            except Empty:
                self.close()  # a late answer would be taken for that to the next request
                raise LeaseRefused(
                    grpc.StatusCode.DEADLINE_EXCEEDED, f"no answer about a region within {ANSWER_TIMEOUT_S:g} s"
                ) from None
        if answer is None:
            raise LeaseRefused(*self._ending)
        if answer.error_message or answer.error_code:
            raise LeaseRefused(_CODES.get(answer.error_code, grpc.StatusCode.UNKNOWN), answer.error_message)
        return answer

    def _read(self) -> None:
        try:
            for response in self._call:
                self._answers.put(response)
        except grpc.RpcError as error:
            self._ending = (error.code(), error.details() or "no reason given")
        self._ended.set()
        self._answers.put(None)
        self._requests.put(None)

    def _keep_renewing(self, expiry_s: int) -> None:
        with self._turn:
            if self._renewal is None:
                interval = expiry_s / _RENEWALS_PER_EXPIRY
                self._renewal = threading.Thread(
                    target=self._renew_every, args=(interval,), name="lease-renewal", daemon=True
                )
                self._renewal.start()

    def _renew_every(self, interval_s: float) -> None:
        while not self._ended.wait(interval_s):
            self._before_renewal()
            try:
                self.renew()
            except LeaseRefused:
                self.close()
