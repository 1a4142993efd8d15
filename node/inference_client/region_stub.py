"""The methods of tensor regions as the node calls them: what carries chunks goes without protobuf's copies of them."""

import grpc

from protos.region_wire import read_download, written
from protos.tensor_regions_pb2 import DESCRIPTOR, DownloadRequest, UploadResponse
from protos.tensor_regions_pb2_grpc import TensorRegionsStub

_SERVICE = DESCRIPTOR.services_by_name["TensorRegions"].full_name


def region_stub(channel: grpc.Channel) -> TensorRegionsStub:
    """Make a stub whose Upload takes messages with their chunks apart too, and whose Download gives them so."""
    stub = TensorRegionsStub(channel)
    stub.Upload = channel.stream_unary(f"/{_SERVICE}/Upload", written, UploadResponse.FromString)
    stub.Download = channel.unary_stream(
        f"/{_SERVICE}/Download",
        DownloadRequest.SerializeToString,
        read_download,  # type: ignore[arg-type]  # the generated stub knows whole messages alone
    )
    return stub
