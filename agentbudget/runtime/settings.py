"""Settings of a runtime: one frozen value with named defaults, and five names read from the environment.

Not pydantic-settings: its import alone takes longer than everything else that the first step needs (README.md).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias, get_args

import msgspec
from msgspec import Struct

from agentbudget.errors import InvalidRequest
from agentbudget.ledger.shards import SHARDS

LEDGER_VARIABLE: Final = "AGENTBUDGET_LEDGER"
CATALOG_VARIABLE: Final = "AGENTBUDGET_CATALOG"
SYNCHRONOUS_VARIABLE: Final = "AGENTBUDGET_SYNCHRONOUS"
OWNERS_VARIABLE: Final = "AGENTBUDGET_OWNERS"
OWNER_LIFETIME_VARIABLE: Final = "AGENTBUDGET_OWNER_LIFETIME"
_VARIABLES: Final = {
    "ledger": LEDGER_VARIABLE,
    "catalog": CATALOG_VARIABLE,
    "synchronous": SYNCHRONOUS_VARIABLE,
    "owners": OWNERS_VARIABLE,
    "owner_lifetime": OWNER_LIFETIME_VARIABLE,
}

HostChoice: TypeAlias = Literal["auto", "local", "ray"]
OwnerLifetime: TypeAlias = Literal["detached", "driver"]
Synchronous: TypeAlias = Literal["FULL", "NORMAL"]
OnLapse: TypeAlias = Literal["charge", "release"]
_HOSTS: Final = get_args(HostChoice)
_SYNCHRONOUS: Final = ("FULL", "NORMAL")


class Settings(Struct, frozen=True, kw_only=True):
    """ledger: URL (``memory://``, ``sqlite:///file``, ``postgresql+psycopg://user@host/database``).  catalog: path, or None
    for the bundled one.  synchronous: SQLite's; with NORMAL a power loss may lose the newest answers (law L1 then holds against
    process death only).

    timeout_seconds: how long a caller waits for the owner.  hold_ttl_seconds: how long a hold outlives its silent
    holder.  lapse_after_seconds: how long what a silent process has leased and not reported waits for its spool;
    on_lapse: then it is booked in full as ``unknown`` (charge; a late spool corrects it), or given back (release).

    On Ray: owners: actors that share the customers of a database (None: by the cluster's cores).  owner_lifetime: they outlive
    the program (detached), or end with the process that made them (driver)."""

    ledger: str = "memory://"
    catalog: str | None = None
    host: HostChoice = "auto"
    synchronous: Synchronous = "FULL"
    timeout_seconds: float = 30.0
    hold_ttl_seconds: int = 60
    lapse_after_seconds: int = 86_400
    on_lapse: OnLapse = "charge"
    owners: int | None = None
    owner_lifetime: OwnerLifetime = "detached"

    def __post_init__(self) -> None:
        if self.host not in _HOSTS:
            raise InvalidRequest(f"{self.host!r} is no host: use one of {', '.join(_HOSTS)}", "host")
        if self.synchronous not in _SYNCHRONOUS:
            raise InvalidRequest(f"{self.synchronous!r} is neither FULL nor NORMAL", "synchronous")
        if not 0 < self.timeout_seconds <= 3_600:
            raise InvalidRequest(f"{self.timeout_seconds!r} is not between 0 and 3600 seconds", "timeout_seconds")
        if type(self.hold_ttl_seconds) is not int or not 1 <= self.hold_ttl_seconds <= 86_400:
            raise InvalidRequest(f"{self.hold_ttl_seconds!r} is not between 1 and 86400 seconds", "hold_ttl_seconds")
        if type(self.lapse_after_seconds) is not int or not 60 <= self.lapse_after_seconds <= 31_536_000:
            raise InvalidRequest(
                f"{self.lapse_after_seconds!r} is not between a minute and a year", "lapse_after_seconds"
            )
        if self.on_lapse not in get_args(OnLapse):
            raise InvalidRequest(f"{self.on_lapse!r} is neither charge nor release", "on_lapse")
        if self.owners is not None and (type(self.owners) is not int or not 1 <= self.owners <= SHARDS):
            raise InvalidRequest(f"{self.owners!r} is not between 1 and {SHARDS}", "owners")
        if self.owner_lifetime not in get_args(OwnerLifetime):
            raise InvalidRequest(f"{self.owner_lifetime!r} is neither detached nor driver", "owner_lifetime")


def settings_from(environ: Mapping[str, str] = os.environ, **stated: object) -> Settings:
    """What is stated wins over the environment, the environment over the defaults."""
    found: dict[str, object] = {
        name: _read(name, environ[variable]) for name, variable in _VARIABLES.items() if environ.get(variable)
    }
    found.update((name, value) for name, value in stated.items() if value is not None)
    unknown = sorted(set(found) - set(Settings.__struct_fields__))
    if unknown:
        raise InvalidRequest(f"no such setting; there are {', '.join(Settings.__struct_fields__)}", ", ".join(unknown))
    return Settings(**found)  # type: ignore[arg-type]


def _read(name: str, text: str) -> object:
    """A setting as the environment has it; what is no such value, :class:`Settings` refuses by name."""
    if name == "owners" and text.isdecimal():
        return int(text)
    return text.upper() if name == "synchronous" else text


def with_settings(settings: Settings, **changes: object) -> Settings:
    """A copy with some values changed."""
    return msgspec.structs.replace(settings, **changes)
