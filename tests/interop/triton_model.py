"""The threshold model of tests/bundles.py for the Python backend of Triton, which loads this file as model.py."""

import numpy as np
import triton_python_backend_utils as backend

NAMES = ("image", "slope", "intercept")


class TritonPythonModel:
    """Marks voxels above mean + 2 standard deviations."""

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        image, slope, intercept = (backend.get_input_tensor_by_name(request, name).as_numpy() for name in NAMES)
        values = image.astype(np.float32) * slope[:, None, None] + intercept[:, None, None]
        marked = np.where(values > values.mean() + 2 * values.std(), np.uint8(255), np.uint8(0))
        return backend.InferenceResponse(output_tensors=[backend.Tensor("probability", marked)])
