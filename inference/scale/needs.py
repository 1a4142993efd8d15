"""Whether a cluster can hold the replicas that always run."""

import math
from collections.abc import Mapping

from inference.errors import SettingsRefused
from inference.scale.terms import ModelTerms


def refuse_missing(terms: Mapping[str, ModelTerms], had: Mapping[str, float]) -> None:
    """Raise SettingsRefused where the cluster can never hold the replicas that always run.

    Args:
        terms: of every model.
        had: the cluster's resources by Ray's names, "CPU" and "GPU".
    """
    for resource, option, wanted in (
        ("CPU", "--num-cpus", {name: of.min_replicas * of.num_cpus for name, of in terms.items()}),
        ("GPU", "--num-gpus", {name: of.min_replicas * of.num_gpus for name, of in terms.items()}),
    ):
        in_all, there = math.fsum(wanted.values()), had.get(resource, 0.0)
        if in_all > there:
            each = ", ".join(f"{name} {amount:g}" for name, amount in sorted(wanted.items()))
            raise SettingsRefused(
                f"{option}: the replicas that always run take {in_all:g} {resource} ({each}), the cluster has "
                f"{there:g}. Remedy: a smaller {option} or --min-replicas, fewer --model, or a larger cluster"
            )
