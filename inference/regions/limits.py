"""How much memory clients may lease, and for how long."""

from dataclasses import dataclass

from inference.errors import SettingsRefused


@dataclass(frozen=True, slots=True)
class RegionLimits:
    """What clients may lease; refused when constructed where it cannot be right."""

    region_max_bytes: int = 4 << 30
    client_quota_bytes: int = 8 << 30
    """All regions of one client, those that died in use included."""
    client_regions: int = 64
    leases_most: int = 64
    """Open leases of all clients; each holds a thread."""
    expiry_s: float = 60.0
    """A region that is not renewed for so long dies; clients are told whole seconds."""

    def __post_init__(self) -> None:
        """Raise SettingsRefused where a limit leaves nothing."""
        for option, value in (
            ("--region-mb", self.region_max_bytes),
            ("--client-region-mb", self.client_quota_bytes),
            ("--client-regions", self.client_regions),
            ("--leases", self.leases_most),
            ("--region-expiry-s", self.expiry_s),
        ):
            if not value >= 1:
                raise SettingsRefused(f"{option} {value}: must be at least 1")
