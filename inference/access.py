"""Which client may call which method: the SAN lists of `--access`."""

import tomllib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import grpc
import structlog

from inference.errors import AccessDenied, ClientUnknown, SettingsRefused
from inference.interception import AroundInterceptor
from inference.security import certificate_names, client_of

_log = structlog.get_logger(__name__)
ANYBODY = "*"
_SHOWN = 120
Rules = Mapping[str, frozenset[str]]
"""Pattern of a method "/package.Service/Method" -> SANs that may call it."""


def read_access_rules(path: Path, methods: Collection[str]) -> Rules:
    """Read the table [allow] of an access file; every pattern must match one of `methods`.

    Raises:
        SettingsRefused: the file is not that, or a pattern matches no method (a slip that would deny silently).
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SettingsRefused(f"--access {path}: no such file") from error
    except OSError as error:
        raise SettingsRefused(f"--access {path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsRefused(f"--access {path}: cannot be read as TOML: {error}") from error
    table = document.get("allow")
    if set(document) != {"allow"} or not isinstance(table, dict):
        raise SettingsRefused(f"--access {path}: must hold the table [allow] and nothing else, got {sorted(document)}")
    return {pattern: _names(path, pattern, names, methods) for pattern, names in table.items()}


def _names(path: Path, pattern: str, names: object, methods: Collection[str]) -> frozenset[str]:
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise SettingsRefused(f"--access {path}: {pattern!r} must be a list of SANs, got {names!r:.{_SHOWN}}")
    if not any(fnmatchcase(method, pattern) for method in methods):
        raise SettingsRefused(f"--access {path}: {pattern!r} matches no method, e.g. {sorted(methods)[0]!r} does")
    return frozenset(names)


class AccessInterceptor(AroundInterceptor):
    """Lets a client call what a rule allows it, and nothing else."""

    def __init__(self, rules: Rules) -> None:
        super().__init__()
        self._rules = dict(rules)

    @contextmanager
    def around(self, method: str, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        """Refuse before the method's behaviour sees the request.

        Raises:
            ClientUnknown: the client showed no certificate with a SAN.
            AccessDenied: none of its SANs is listed for the method.
        """
        allowed = frozenset[str]().union(*(names for rule, names in self._rules.items() if fnmatchcase(method, rule)))
        names = certificate_names(context)
        if ANYBODY not in allowed and not names & allowed:
            _log.warning("access_denied", method=method[:_SHOWN], client=client_of(context)[:_SHOWN])
            if not names:
                raise ClientUnknown(f"{method}: needs a client certificate with a SAN that --access lists")
            raise AccessDenied(f"{method}: no SAN of the client's certificate is listed for it in --access")
        yield request
