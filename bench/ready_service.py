"""An Open Inference Protocol server whose forward pass is free: it looks at the voxels' bytes and returns a ready mask.

Run as a process of its own, like a real service: python -m bench.ready_service MASK.npy DIGEST
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np

from protos import open_inference_pb2 as messages
from protos.open_inference_pb2_grpc import GRPCInferenceServiceServicer, add_GRPCInferenceServiceServicer_to_server

LIMIT = 1 << 30
OPTIONS = (("grpc.max_send_message_length", LIMIT), ("grpc.max_receive_message_length", LIMIT))
DTYPES = {"INT16": np.int16, "FP32": np.float32}


class ReadyServicer(GRPCInferenceServiceServicer):
    """Answers every ModelInfer with the same mask."""

    def __init__(self, mask: np.ndarray, digest: str) -> None:
        self._shape = mask.shape
        self._raw = mask.tobytes()
        self._digest = digest

    def ModelInfer(  # noqa: N802 (the RPC's name)
        self, request: messages.ModelInferRequest, context: grpc.ServicerContext
    ) -> messages.ModelInferResponse:
        image = request.inputs[0]
        voxels = np.frombuffer(request.raw_input_contents[0], DTYPES[image.datatype]).reshape(tuple(image.shape))
        if voxels.shape != self._shape:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"image is {voxels.shape}, the mask {self._shape}")
        response = messages.ModelInferResponse(
            model_name=request.model_name, model_version=request.model_version, id=request.id
        )
        response.parameters["hilum.digest"].string_param = self._digest
        response.outputs.add(name="probability", datatype="UINT8", shape=self._shape)
        response.raw_output_contents.append(self._raw)
        return response


def main() -> None:
    """Serve until the standard input is closed; the first line of the output is the port."""
    server = grpc.server(ThreadPoolExecutor(2), options=OPTIONS)
    add_GRPCInferenceServiceServicer_to_server(ReadyServicer(np.load(Path(sys.argv[1])), sys.argv[2]), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(None).wait()


if __name__ == "__main__":
    main()
