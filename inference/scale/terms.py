"""How one model is replicated: the options of the command, and a table of the `--scaling` file that overrides them."""

import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from inference.errors import SettingsRefused
from inference.waiting_line import SHARED_PLACES
from protos.model_manifest import Batching, describe_validation

LOOK_BACK_MOST_S = 30.0
_LOOKS = 5
"""Counts of requests in one look-back."""


class ModelTerms(BaseModel):
    """Replicas of one model and what each of them gets; refused when constructed where it cannot be right."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_replicas: Annotated[int, Field(ge=1, le=1000, description="replicas of a model that always run")] = 1
    max_replicas: Annotated[int, Field(ge=0, le=1000, description="replicas under load; 0: no more than always")] = 0
    target_requests: Annotated[
        float, Field(ge=0, le=1000, description="requests a replica shall have; 0: by the model")
    ] = 0.0
    up_delay_s: Annotated[float, Field(ge=0, le=3600, description="seconds of load before replicas are added")] = 10.0
    down_delay_s: Annotated[float, Field(ge=0, le=86400, description="seconds of calm before some end")] = 300.0
    num_cpus: Annotated[float, Field(gt=0, le=1024, description="cores of a replica; a part of one is fine")] = 1.0
    num_gpus: Annotated[float, Field(ge=0, le=64, description="GPUs of a replica; a part of one is fine")] = 0.0
    concurrency: Annotated[int, Field(ge=1, le=1024, description="predictions that run at once in a replica")] = 1
    queue: Annotated[int, Field(ge=0, le=10000, description="requests of a model that wait; more are refused")] = 8

    @classmethod
    def read(cls, stated: Mapping[str, Any], where: str) -> Self:
        """Check what was stated; raise SettingsRefused, which begins with `where`."""
        try:
            read = cls.model_validate(dict(stated))
        except ValidationError as error:
            raise SettingsRefused(f"{where}: {describe_validation(error)}") from error
        if 0 < read.max_replicas < read.min_replicas:
            raise SettingsRefused(
                f"{where}: max_replicas {read.max_replicas}: must be at least min_replicas, {read.min_replicas}"
            )
        if read.num_gpus > 1 and read.num_gpus != int(read.num_gpus):
            raise SettingsRefused(f"{where}: num_gpus {read.num_gpus:g}: must be a part of one GPU, or whole GPUs")
        return read

    @property
    def replicas_most(self) -> int:
        """Give the replicas that the model has at most."""
        return max(self.min_replicas, self.max_replicas)

    def ongoing_most(self, batching: Batching | None) -> int:
        """Give the requests that a replica takes at once.

        One more than run, so that its bytes are there when its turn comes; of a model whose requests share runs, as
        many as fill one run while another is computed.
        """
        return self.concurrency + 1 if batching is None else min(SHARED_PLACES, 2 * batching.max_batch)

    def target_of(self, batching: Batching | None) -> float:
        """Give the requests in a replica above which another one is wanted."""
        if self.target_requests:
            return self.target_requests
        return float(self.concurrency if batching is None else batching.max_batch)

    @property
    def look_back_s(self) -> float:
        """Seconds whose mean load decides."""
        return min(LOOK_BACK_MOST_S, max(1.0, self.up_delay_s))

    @property
    def look_every_s(self) -> float:
        """Seconds between two counts of requests."""
        return self.look_back_s / _LOOKS


def read_scaling(path: Path, common: ModelTerms, names: Collection[str]) -> dict[str, ModelTerms]:
    """Read the tables of a scaling file, one for each model that differs from `common`.

    Raises:
        SettingsRefused: it cannot be read, names a model that is not served, or holds what cannot be right.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsRefused(f"--scaling {path}: cannot be read as TOML: {error}") from error
    found = {}
    for name, table in tables.items():
        if name not in names:
            raise SettingsRefused(f"--scaling {path}: [{name}] is none of the models served: {sorted(names)}")
        if not isinstance(table, dict):
            raise SettingsRefused(f"--scaling {path}: {name}: must be a table [{name}], got {table!r:.80}")
        found[name] = ModelTerms.read(common.model_dump() | table, f"--scaling {path}: [{name}]")
    return found
