"""The service's errors. Each class states its gRPC status; `error_interceptor` is the only place that sends it.

    ServiceError
    ├── RequestRefused          tensor, dtype, shape, bytes     INVALID_ARGUMENT     final
    ├── ModelNotFound           no such model or version        NOT_FOUND            final
    ├── BundleRefused           a bundle failed its checks      FAILED_PRECONDITION  final
    ├── RegionNotFound          no such region for this client  NOT_FOUND            final
    ├── RegionNotReady          under upload, or in use         FAILED_PRECONDITION  final
    ├── AlreadyRegistered       a region's name is taken        ALREADY_EXISTS       final
    ├── NotOffered              an RPC or a way switched off    UNIMPLEMENTED        final
    ├── RequestTooLarge         never fits this machine         FAILED_PRECONDITION  final
    ├── Busy                    queue or memory taken           RESOURCE_EXHAUSTED   retry
    ├── ModelNotReady           loading, or shutting down       UNAVAILABLE          retry
    ├── ClientUnknown           no certificate was shown        UNAUTHENTICATED      final
    ├── AccessDenied            its SAN is not listed           PERMISSION_DENIED    final
    ├── DeadlinePassed          no time left to answer          DEADLINE_EXCEEDED    retry
    ├── RequestCancelled        the client is gone              CANCELLED            -
    └── PredictionFailed        the graph failed, or NaN came   INTERNAL             final
    ListenError, SettingsRefused   the service does not start

A TensorError of `protos.tensors` raised while a request is read counts as RequestRefused. Messages name the tensor,
what was expected and what came; never values of a tensor.
"""

from typing import ClassVar

import grpc


class ServiceError(Exception):
    """Base of the errors that answer a request; `code` is the gRPC status."""

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL


class RequestRefused(ServiceError):
    """The request is not what the model's manifest says."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class ModelNotFound(ServiceError):
    """The repository holds no such model or version."""

    code = grpc.StatusCode.NOT_FOUND


class BundleRefused(ServiceError):
    """A bundle failed its checks: digest, manifest, graph, signature or golden pair."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class RegionNotFound(ServiceError):
    """This client has no region of that name."""

    code = grpc.StatusCode.NOT_FOUND


class RegionNotReady(ServiceError):
    """The region is under upload, or in use by a request, or its slots are not full."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class AlreadyRegistered(ServiceError):
    """A region of that name is registered already."""

    code = grpc.StatusCode.ALREADY_EXISTS


class NotOffered(ServiceError):
    """The service does not offer this RPC, or its operator switched it off."""

    code = grpc.StatusCode.UNIMPLEMENTED


class RequestTooLarge(ServiceError):
    """The request needs more memory than this machine has."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class Busy(ServiceError):
    """The queue is full, or the memory that the request needs is taken at the moment."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class ModelNotReady(ServiceError):
    """The model is known and not yet warmed, or the service is stopping."""

    code = grpc.StatusCode.UNAVAILABLE


class ClientUnknown(ServiceError):
    """The method needs a client certificate and none was shown."""

    code = grpc.StatusCode.UNAUTHENTICATED


class AccessDenied(ServiceError):
    """The client's certificate is not listed for the method."""

    code = grpc.StatusCode.PERMISSION_DENIED


class DeadlinePassed(ServiceError):
    """The client's deadline passed before the answer was there."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class RequestCancelled(ServiceError):
    """The client cancelled or went away while the request waited."""

    code = grpc.StatusCode.CANCELLED


class PredictionFailed(ServiceError):
    """The graph failed, or its answer is not what the manifest says (NaN and infinity included)."""

    code = grpc.StatusCode.INTERNAL


class SettingsRefused(ValueError):
    """The command line asks for something that cannot be; the message says what would be right."""


class ListenError(OSError):
    """An address cannot be listened on."""
