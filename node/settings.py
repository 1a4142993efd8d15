"""The node's settings: one TOML file and HILUM_* environment variables, checked whole before anything starts.

An environment variable wins over the file: HILUM_LISTENER__PORT=11113 sets [listener] port.
"""

import difflib
import hashlib
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as SourceError

from node.errors import SettingsError

DEFAULT_FILE = Path("hilum.toml")
AeTitle = Annotated[str, Field(min_length=1, max_length=16, pattern=r"^[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?$")]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Address = Annotated[str, Field(pattern=r"^(unix:.+|[^:\s]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5})$")]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ListenerSettings(_Section):
    """Who may send to this node, and how much at once."""

    ae_title: AeTitle = "HILUM"
    """Called AE title; associations to another title are rejected."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 is every interface. Loopback until you say otherwise."""
    port: Port = 11112
    """TCP port; 0 lets the system choose one (printed at start)."""
    calling_ae_titles: tuple[AeTitle, ...] = ()
    """Calling AE titles taken; empty takes any."""
    max_associations: Annotated[int, Field(ge=1, le=1000)] = 100
    """Open associations in all; more are rejected transiently (PS3.8 9.3.4: result 2, source 3, reason 2)."""
    max_associations_per_peer: Annotated[int, Field(ge=1, le=1000)] = 50
    """Per network address, open connections included that have not yet asked for an association."""
    network_timeout_s: Seconds = 60.0
    """Silence after which an association is aborted."""
    acse_timeout_s: Seconds = 30.0
    """A connection must have become an association within this time."""

    max_pdu_bytes: Annotated[int, Field(ge=4096, le=1 << 20)] = 1 << 17
    """Maximum Length Received that is offered to the peer (PS3.8 D.1)."""
    max_instance_bytes: Annotated[int, Field(ge=1 << 20)] = 4 << 30
    """A larger instance is refused while it arrives."""
    unknown_sop_classes: bool = False
    """Accept storage SOP classes that the standard does not know (private ones)."""


class StoreSettings(_Section):
    """Where instances, results and the index lie."""

    state_directory: Path = Path("state")
    """Instances, outbox, index and workflow; one running node per directory."""
    low_disk_bytes: Annotated[int, Field(ge=0)] = 2 << 30
    """Below this much free space new associations are rejected transiently."""


class CompletionSettings(_Section):
    """When a study is ready."""

    settle_s: Seconds = 5.0
    """Quiet time with no open association that carried the study."""
    hanging_s: Seconds = 60.0
    """Quiet time with one hanging open."""

    @model_validator(mode="after")
    def _hanging_not_shorter(self) -> Self:
        if self.hanging_s < self.settle_s:
            raise ValueError(f"hanging_s = {self.hanging_s:g} must not be shorter than settle_s = {self.settle_s:g}")
        return self


class TlsSettings(_Section):
    """TLS to the inference service; with certificate and key, mutual."""

    ca: Path | None = None
    """PEM file of the authorities that the service's certificate is checked against; unset takes the system's."""
    certificate: Path | None = None
    """PEM file of this node's certificate chain."""
    key: Path | None = None
    """PEM file of its private key."""
    server_name: str = ""
    """Name that the service's certificate states, where it is not the endpoint's host."""

    @model_validator(mode="after")
    def _certificate_with_key(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together: set both or neither")
        return self


class InferenceSettings(_Section):
    """How to reach the inference service."""

    endpoint: Address = "127.0.0.1:8500"
    """"host:port" or "unix:/path"."""
    endpoints: tuple[Address, ...] = ()
    """Several services that serve the same models, asked in turn; set instead of `endpoint`."""
    tls: TlsSettings | None = None
    """Table [inference.tls]: ca, certificate, key (PEM files), server_name. Unset: no encryption."""
    start_service: bool = True
    """`hilum up` starts the service itself on this machine."""
    deadline_s: Seconds = 600.0
    max_message_mb: Annotated[int, Field(ge=4, le=2047)] = 1024
    """Largest gRPC message in either direction; a volume and its maps must fit."""
    regions: Literal["auto", "upload", "off"] = "auto"
    """How big tensors travel. auto: in memory shared with the service on this host, in chunks to another;
    upload: always in chunks; off: in the message. A service without regions gets messages."""
    early_upload: Literal["auto", "off"] = "auto"
    """auto: slices of a series that a model may take are uploaded while the series still arrives, to a service whose
    memory cannot be shared; off: all of it when the study is ready."""
    early_upload_series: Annotated[int, Field(ge=1, le=16)] = 2
    """Series uploaded early at once; each holds a stream of the service and the memory of `early_upload_slices`."""
    early_upload_slices: Annotated[int, Field(ge=2, le=16384)] = 512
    """Slices that the service is asked to keep room for, where a header does not state more; a longer series is
    uploaded whole when the study is ready."""
    models_directory: Path | None = None
    """Bundles `<name>/<version>/`; unset takes the models that ship with Hilum."""
    models: tuple[str, ...] = ()
    """Names of the models to run; empty runs all in the directory."""

    @model_validator(mode="after")
    def _one_way_to_name_endpoints(self) -> Self:
        if self.endpoints and "endpoint" in self.model_fields_set and self.endpoint not in self.endpoints:
            raise ValueError(f"endpoint = {self.endpoint!r} is not among endpoints; set one of the two")
        if len(set(self.endpoints)) != len(self.endpoints):
            raise ValueError(f"endpoints must differ; got {list(self.endpoints)}")
        return self

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every endpoint, in order."""
        return self.endpoints or (self.endpoint,)

    def with_started(self, address: str) -> Self:
        """Settings with the service that this node started in place of `endpoint`; other endpoints stay."""
        others = tuple(item for item in self.endpoints if item not in (self.endpoint, address))
        return self.model_copy(update={"endpoint": address, "endpoints": (address, *others) if others else ()})


class ProcessingSettings(_Section):
    """How many studies are worked on at once, and by which name results are signed."""

    concurrency: Annotated[int, Field(ge=1, le=64)] = max(1, (os.cpu_count() or 2) // 2)
    """Studies worked on at the same time."""
    institution_name: Annotated[str, Field(max_length=64)] = ""
    """Institution Name of the device observer in reports."""
    device_serial_number: Annotated[str, Field(min_length=1, max_length=64)] = "1"
    """Device Serial Number (0018,1000) of this installation."""
    max_volume_mb: Annotated[int, Field(ge=16)] = 1000
    """A series whose voxels take more is refused; bounds memory per study."""


class Destination(_Section):
    """A PACS that results are sent to."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
    """What `hilum study` and `hilum doctor` call it."""
    ae_title: AeTitle
    """Called AE title of the PACS."""
    host: str
    """Its host name or address."""
    port: Annotated[int, Field(ge=1, le=65535)]
    """Its DICOM port."""
    calling_ae_title: AeTitle | None = None
    """Unset: the listener's AE title."""
    timeout_s: Seconds = 30.0
    """Silence of the PACS after which an attempt ends."""
    retry_first_s: Seconds = 5.0
    """Wait after the first failed attempt; doubles, with jitter, to at most retry_most_s."""
    retry_most_s: Seconds = 900.0
    """Longest wait between two attempts."""

    @model_validator(mode="after")
    def _waits_grow(self) -> Self:
        if self.retry_most_s < self.retry_first_s:
            raise ValueError(
                f"retry_first_s = {self.retry_first_s:g} must not be longer than retry_most_s = {self.retry_most_s:g}"
            )
        return self

    give_up_after_s: Annotated[float, Field(gt=0)] = 7 * 86_400.0
    """After this time an object that never arrived is given up, and said so; `hilum retry` starts again."""


class LogSettings(_Section):
    """How the log is written."""

    format: Literal["auto", "console", "json"] = "auto"
    """auto: human on a terminal, JSON lines otherwise."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level that is written."""


class Settings(BaseSettings):
    """All settings of one node; frozen."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix="HILUM_",
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
    )

    listener: ListenerSettings = ListenerSettings()
    store: StoreSettings = StoreSettings()
    completion: CompletionSettings = CompletionSettings()
    inference: InferenceSettings = InferenceSettings()
    processing: ProcessingSettings = ProcessingSettings()
    log: LogSettings = LogSettings()
    destinations: tuple[Destination, ...] = ()

    @field_validator("destinations")
    @classmethod
    def _names_differ(cls, value: tuple[Destination, ...]) -> tuple[Destination, ...]:
        names = [item.name for item in value]
        if len(set(names)) != len(names):
            raise ValueError(f"destination names must differ; got {names}")
        return value

    @model_validator(mode="after")
    def _volume_fits_a_message(self) -> Self:
        volume, message = self.processing.max_volume_mb, self.inference.max_message_mb
        if self.inference.regions == "off" and volume >= message:
            raise ValueError(
                f"processing.max_volume_mb = {volume} must be less than inference.max_message_mb = {message}: "
                "a volume travels in one message with inference.regions = 'off'"
            )
        return self

    @model_validator(mode="after")
    def _started_service_has_no_certificate(self) -> Self:
        inference = self.inference
        if inference.start_service and inference.tls is not None and not inference.endpoint.startswith("unix:"):
            raise ValueError(
                f"inference.tls with inference.start_service = true and inference.endpoint = {inference.endpoint!r}: "
                "the service that the node starts has no certificate. Remedy: set endpoint = 'unix:/path' for it, "
                "or start_service = false"
            )
        return self

    @property
    def result_digest(self) -> str:
        """Hex SHA-256 over the settings that change what a result says: part of every result's key."""
        text = f"{self.processing.institution_name}\n{self.processing.device_serial_number}"
        return hashlib.sha256(text.encode()).hexdigest()


class _FileSettings(Settings):
    """Settings with the environment above the values handed in from the file."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 (the signature is pydantic-settings')
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (the signature is pydantic-settings')
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (the signature is pydantic-settings')
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment first: an operator's override must win over the file."""
        return env_settings, init_settings


def load_settings(file: Path | None = None) -> Settings:
    """Read settings from `file` (or ./hilum.toml where it exists) and the environment.

    Raises:
        SettingsError: the file cannot be read, or a key is unknown, a value of the wrong type or a combination
            impossible; the message gives the file, the key, the value and what would be right.
    """
    path = file or (DEFAULT_FILE if DEFAULT_FILE.exists() else None)
    place = str(path) if path else "environment"
    _refuse_unknown_variables()
    try:
        return _FileSettings(**_read_toml(path))
    except ValidationError as error:
        lines = [_sentence(_source_of(item, place), item) for item in error.errors()]
        raise SettingsError("\n".join(lines)) from error
    except SourceError as error:
        raise SettingsError(
            f"environment: {error}: {error.__cause__}. Lists and tables are written as JSON."
        ) from error


def _read_toml(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SettingsError(f"{path}: no such file. Remedy: `hilum init` writes one to start from.") from error
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read as TOML: {error}") from error


def _refuse_unknown_variables() -> None:
    known = {f"HILUM_{name}".upper() for name in Settings.model_fields} | {"HILUM_SETTINGS", "HILUM_SHARED_DATA"}
    for name, field in Settings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            known |= {f"HILUM_{name}__{key}".upper() for key in section.model_fields}
    for variable in os.environ:
        if variable.startswith("HILUM_") and variable not in known:
            near = difflib.get_close_matches(variable, known, n=1)
            raise SettingsError(f"environment: {variable} is not a setting" + (f"; meant {near[0]}?" if near else ""))


def _sentence(place: str, item: ErrorDetails) -> str:
    key = ".".join(str(part) for part in item["loc"]) or "document"
    if item["type"] == "extra_forbidden":
        return f"{place}: {key}: unknown key (value {item['input']!r}). Remedy: {_known_keys(item['loc'])}"
    if key == "destinations" and isinstance(item["input"], dict):
        return f"{place}: {key}: is one table. Remedy: write [[destinations]], once for each destination"
    return f"{place}: {key}: {item['msg']} (value {item['input']!r:.120})"


def _source_of(item: ErrorDetails, place: str) -> str:
    """Name the variable that a value came from, else the file."""
    names = [str(part).upper() for part in item["loc"] if isinstance(part, str)]
    for variable in ("HILUM_" + "__".join(names), *(f"HILUM_{name}" for name in names[:1])):
        if variable in os.environ:
            return variable
    return place


def _known_keys(location: tuple[int | str, ...]) -> str:
    section = Settings.model_fields.get(str(location[0])) if len(location) > 1 else None
    kind = Destination if location[0] == "destinations" else section.annotation if section else Settings
    keys = list(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else []
    near = difflib.get_close_matches(str(location[-1]), keys, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known keys are {', '.join(keys)}"
