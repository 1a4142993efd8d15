"""A manifest and its figures in Triton's words: ModelConfig and ModelStatistics."""

from inference.answers import DIGEST_PARAMETER
from inference.errors import BundleRefused
from inference.statistics import Computing, ModelFigures, Spent
from protos import open_inference_pb2 as messages
from protos.model_manifest import MANIFEST_FILE, Batching, ModelBundle

PLATFORM = "tensorflow_frozen_graph"
BACKEND = "hilum"
MANIFEST_PARAMETER = "hilum.manifest"
PRIORITY_LEVELS = 2**32 - 1
_MODEL_FILE = "saved_model.pb"


def model_config(bundle: ModelBundle, gpus: tuple[int, ...] = ()) -> messages.ModelConfig:
    """Describe a model with its whole manifest in the parameters.

    `max_batch_size` is 0: requests have no batch dimension of their own, tiles are batched behind them.
    """
    manifest = bundle.manifest
    config = messages.ModelConfig(
        name=manifest.identity.name,
        platform=PLATFORM,
        backend=BACKEND,
        version_policy=messages.ModelVersionPolicy(all=messages.ModelVersionPolicy.All()),
        default_model_filename=_MODEL_FILE,
    )
    for tensor in manifest.inputs:
        config.input.add(name=tensor.name, data_type=_data_type(tensor.datatype), dims=tensor.shape)
    for tensor in manifest.outputs:
        config.output.add(name=tensor.name, data_type=_data_type(tensor.datatype), dims=tensor.shape)
    kind = messages.ModelInstanceGroup.KIND_GPU if gpus else messages.ModelInstanceGroup.KIND_CPU
    config.instance_group.add(name=f"{manifest.identity.name}_0", count=1, gpus=gpus, kind=kind)
    if manifest.batching is not None:
        config.dynamic_batching.CopyFrom(_dynamic_batching(manifest.batching))
    config.parameters[MANIFEST_PARAMETER].string_value = _manifest_text(bundle)
    config.parameters[DIGEST_PARAMETER].string_value = bundle.digest
    return config


def model_statistics(name: str, version: str, figures: ModelFigures) -> messages.ModelStatistics:
    """Write the figures of one version."""
    computing = figures.computing
    return messages.ModelStatistics(
        name=name,
        version=version,
        last_inference=figures.last_inference_ms,
        inference_count=figures.success.count,
        execution_count=figures.executions,
        inference_stats=messages.InferStatistics(
            success=_duration(figures.success),
            fail=_duration(figures.fail),
            queue=_duration(figures.queue),
            compute_input=_duration(computing.input),
            compute_infer=_duration(computing.infer),
            compute_output=_duration(computing.output),
        ),
        batch_stats=[_batch(size, figures.by_batch[size]) for size in sorted(figures.by_batch)],
    )


def _batch(size: int, computing: Computing) -> messages.InferBatchStatistics:
    return messages.InferBatchStatistics(
        batch_size=size,
        compute_input=_duration(computing.input),
        compute_infer=_duration(computing.infer),
        compute_output=_duration(computing.output),
    )


def _duration(spent: Spent) -> messages.StatisticDuration:
    return messages.StatisticDuration(count=spent.count, ns=spent.ns)


def _data_type(datatype: str) -> messages.DataType.ValueType:
    return messages.DataType.Value(f"TYPE_{datatype}")


def _dynamic_batching(batching: Batching) -> messages.ModelDynamicBatching:
    return messages.ModelDynamicBatching(
        preferred_batch_size=batching.preferred or (batching.max_batch,),
        max_queue_delay_microseconds=round(batching.max_delay_ms * 1000),
        priority_levels=PRIORITY_LEVELS,
        default_priority_level=PRIORITY_LEVELS,
        default_queue_policy=messages.ModelQueuePolicy(max_queue_size=batching.max_queue),
    )


def _manifest_text(bundle: ModelBundle) -> str:
    try:
        return (bundle.directory / MANIFEST_FILE).read_text(encoding="utf-8")
    except OSError as error:
        raise BundleRefused(f"{bundle.directory / MANIFEST_FILE}: is gone while the model is loaded") from error
