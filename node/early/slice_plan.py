"""What one image says of the slot that it would take at the service: everything that can be known before the rest.

Only where the bytes of a slice can already be those that the finished volume will have. Uncertain means no: an image
that is compressed (it would be decoded twice), values whose type depends on the others, slices that become no slices.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.domain.instances import ImageHeader, SopReference
from node.domain.orientation import Reorientation
from node.errors import InferenceRejected
from node.imaging.slice_pixels import fill_slice, is_native
from node.imaging.stored_values import voxel_type
from node.inference_client.early_uploads import Model
from node.inference_client.requests import image_of
from node.routing.acceptance import image_reasons
from protos.model_manifest import ModelBundle
from protos.tensors import datatype_of, dtype_of

_SIGNLESS_BITS_MOST = 15
"""More Bits Stored, unsigned, and the volume's largest value decides whether 32768 is taken from every voxel."""


@dataclass(frozen=True, slots=True)
class SlicePlan:
    """How the images of a series become slots, for the models that want them alike."""

    axes: str
    datatype: str
    way: Reorientation
    shape: tuple[int, int]
    """Rows and columns in the model's axes."""
    models: frozenset[Model]
    most_slices: int | None
    """The most that one of these models takes; None where one has no bound."""

    def pixels_of(self, header: ImageHeader) -> NDArray[Any]:
        """Read an image as its slot [row, column] in the model's axes and datatype.

        Raises:
            DecodingError, OSError: as `fill_slice`.
        """
        pixels = np.empty((header.rows, header.columns), voxel_type(header))
        fill_slice(header, pixels)
        turned: NDArray[Any] = self.way.forth(pixels[None])[0]
        if self.datatype == "INT16" and turned.dtype == np.uint16:
            return turned.view(np.int16)
        return turned.astype(dtype_of(self.datatype), copy=False)

    def is_like(self, other: "SlicePlan") -> bool:
        """Tell whether slots of both are parts of one tensor."""
        return (self.axes, self.datatype, self.shape, self.way.permutation, self.way.flips) == (
            other.axes,
            other.datatype,
            other.shape,
            other.way.permutation,
            other.way.flips,
        )


def plans_of(bundles: Iterable[ModelBundle], header: ImageHeader) -> tuple[SlicePlan, ...]:
    """Give one plan for each layout of voxels that models want which may take a series of such images."""
    plans: dict[tuple[str, str], SlicePlan] = {}
    if not is_native(header) or (header.temporal_positions or 1) > 1:
        return ()
    for bundle in bundles:
        plan = _plan(bundle, header)
        if plan is not None:
            known = plans.get((plan.axes, plan.datatype))
            plans[plan.axes, plan.datatype] = plan if known is None else _joined(known, plan)
    return tuple(plans.values())


def kind_of(header: ImageHeader) -> ImageHeader:
    """Give the header without what sets the images of a series apart: equal kinds have equal plans."""
    return replace(
        header,
        sop=SopReference(header.sop.sop_class_uid, ""),
        path=Path(),
        instance_number=None,
        position=None if header.position is None else (0.0, 0.0, 0.0),
        rescale_slope=float(header.rescale_slope != 0),
        rescale_intercept=0.0,
        pixel_offset=None if header.pixel_offset is None else 0,
    )


def _plan(bundle: ModelBundle, header: ImageHeader) -> SlicePlan | None:
    manifest = bundle.manifest
    way, reasons = image_reasons(manifest.accepts, header)
    if way is None or reasons or not way.keeps_slices:
        return None
    try:
        image = image_of(manifest)
    except InferenceRejected:
        return None
    shape = way.forth(np.empty((1, header.rows, header.columns), np.bool_))[0].shape
    fits = len(image.shape) == 3 and all(want in (-1, size) for want, size in zip(image.shape[1:], shape, strict=True))
    if not fits or not _is_certain(header, image.datatype):
        return None
    identity = manifest.identity
    return SlicePlan(
        axes=manifest.accepts.axes,
        datatype=image.datatype,
        way=way,
        shape=(shape[0], shape[1]),
        models=frozenset({(identity.name, identity.version)}),
        most_slices=None if manifest.accepts.slices.most is None else int(manifest.accepts.slices.most),
    )


def _is_certain(header: ImageHeader, datatype: str) -> bool:
    """Tell whether the bytes of a slice follow from the slice alone, as `requests.stored_voxels` will make them."""
    stored = voxel_type(header)
    kind = datatype_of(stored)
    if kind == "UINT16" and datatype == "INT16":
        return header.bits_stored <= _SIGNLESS_BITS_MOST
    return kind == datatype or np.can_cast(stored, dtype_of(datatype), "safe")


def _joined(one: SlicePlan, other: SlicePlan) -> SlicePlan:
    bounds = (one.most_slices, other.most_slices)
    most = None if None in bounds else max(bound for bound in bounds if bound is not None)
    return replace(one, models=one.models | other.models, most_slices=most)
