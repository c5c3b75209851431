"""Which database a URL means, whoever opens it and however: what its owners and spools are named by.

Read as libpq reads it, without psycopg: a program on Ray may leave the driver to its owners.
"""

from __future__ import annotations

import os
from typing import Final
from urllib.parse import unquote

_PLACE: Final = ("host", "hostaddr", "port", "dbname", "service")
"""The parameters of libpq that change which database it is. Not ``options``: the schema is always ours."""
_PORT: Final = "5432"


def place_of(url: str) -> str:
    """``postgresql+psycopg://user:password@host:port/database?parameters`` in a normal form: the hosts with their ports in
    order, and the database; no user, no password, none of the parameters that only say how to connect."""
    rest = url.partition("://")[2]
    user, at, behind = rest.partition("@")
    if at and "/" not in user:  # so libpq finds the end of the password
        rest = behind
    where, _, query = rest.partition("?")
    hosts, _, database = where.partition("/")
    found = dict(zip(("host", "port"), _hosts(hosts), strict=True)) | {"dbname": unquote(database)}
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if unquote(name) in _PLACE:
            found[unquote(name)] = unquote(value)
    return f"postgresql://{_together(found)}/{found['dbname']}?service={found.get('service', '')}"


def _hosts(written: str) -> tuple[str, str]:
    """``a:1,[::1]:2`` as the parameters ``host`` and ``port`` have it."""
    hosts, ports = [], []
    for one in written.split(","):
        bracketed, end, behind = one.removeprefix("[").partition("]") if one.startswith("[") else ("", "", "")
        host, _, port = (bracketed, "", behind.removeprefix(":")) if end else one.partition(":")
        hosts.append(unquote(host))
        ports.append(unquote(port))
    return ",".join(hosts), ",".join(ports)


def _together(found: dict[str, str]) -> str:
    """The servers, each with its port. An address is kept beside its name: one name may stand for several servers."""
    hosts = (found["host"] or os.environ.get("PGHOST", "")).lower().split(",")
    addresses = found.get("hostaddr", "").split(",")
    ports = [port or os.environ.get("PGPORT") or _PORT for port in found["port"].split(",")]
    count = max(len(hosts), len(addresses))
    columns = [(*column, *column[-1:] * (count - len(column))) for column in (hosts, addresses, ports)]
    return ",".join(sorted("|".join(server) for server in zip(*columns, strict=True)))
