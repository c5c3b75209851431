"""The runtime: a ledger, a catalog and a host, opened together."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from agentbudget import telemetry
from agentbudget.account.commands import CreateCustomer
from agentbudget.catalog import Catalog
from agentbudget.clock import Clock, SystemClock
from agentbudget.ledger.chain import Anchor, LedgerReport
from agentbudget.ledger.journal import Archive
from agentbudget.ledger.store import Store, is_postgres, open_archive, open_journal
from agentbudget.runtime.carriers import register
from agentbudget.runtime.customer import Customer
from agentbudget.runtime.host import Beaten, Host
from agentbudget.runtime.leases.holder import Holder
from agentbudget.runtime.link import Link, customer_id
from agentbudget.runtime.machine.host import MachineHost
from agentbudget.runtime.machine.sharing import Recovery, catalog_of, database_of, document_of, open_spool
from agentbudget.runtime.on_ray import opening as ray_open
from agentbudget.runtime.on_ray.host import RayHost
from agentbudget.runtime.on_ray.opening import owner_with
from agentbudget.runtime.owner.local_host import LocalHost
from agentbudget.runtime.owner.read_host import ReadHost
from agentbudget.runtime.settings import Settings, settings_from, with_settings
from agentbudget.runtime.spool.recovery import Recovered
from agentbudget.runtime.spool.state_folder import spool_base
from agentbudget.runtime.views import to_us

if TYPE_CHECKING:
    from agentbudget.ledger.audit import Difference

MAX_LINKS: Final = 10_000
"""Customer links remembered at once; forgetting one costs it a look at its plan at its next session."""


class Runtime:
    """Open it with :meth:`open`; ``with`` and ``async with`` close it."""

    def __init__(
        self,
        host: Host,
        archive: Archive,
        catalog: Catalog,
        clock: Clock,
        settings: Settings,
        *,
        spools: str | None = None,
    ) -> None:
        """``spools``: the path beside which the spools of a ledger stand that is no file."""
        self.host, self.clock, self.settings = host, clock, settings
        self._archive, self._catalog = archive, catalog
        self._links: dict[str, Link] = {}
        self.recovery: Recovery | None = None
        self.holder = None if isinstance(host, ReadHost) else self._as_holder(host, spools)
        self.is_closed = False
        register(self)
        telemetry.start()
        telemetry.register(host)
        self.customers = Customers(self)
        self.ledger = Ledger(archive, self)

    @classmethod
    def open(
        cls,
        ledger: str | Store | None = None,
        catalog: str | Path | Catalog | None = None,
        host: str | None = None,
        clock: Clock | None = None,
        *,
        read_only: bool = False,
        synchronous: str | None = None,
        timeout_seconds: float | None = None,
        hold_ttl_seconds: int | None = None,
        lapse_after_seconds: int | None = None,
        on_lapse: str | None = None,
        owners: int | None = None,
        owner_lifetime: str | None = None,
    ) -> Runtime:
        """Open a ledger as its owner, or with ``read_only`` beside whoever owns it.

        ledger: ``sqlite:///budget.db``, ``postgresql+psycopg://user@host/database``, ``memory://`` (the default, unless
        AGENTBUDGET_LEDGER is set), or a journal. catalog: path, ``Catalog``, or None: AGENTBUDGET_CATALOG, else the
        bundled one. host: ``local``, ``ray``, or ``auto``: Ray where this process is on a cluster or RAY_ADDRESS names
        one, else local; a memory ledger is always local. The rest: :class:`Settings`. Raises ``OwnerUnavailable``
        (naming the owner when another process writes), ``LedgerCorrupt``, ``CatalogError`` and ``InvalidRequest``."""
        settings = settings_from(
            ledger=ledger if isinstance(ledger, str) else None, host=host, synchronous=synchronous,
            timeout_seconds=timeout_seconds, hold_ttl_seconds=hold_ttl_seconds, lapse_after_seconds=lapse_after_seconds,
            on_lapse=on_lapse, owners=owners, owner_lifetime=owner_lifetime,
        )  # fmt: skip
        clock = clock or SystemClock()
        found = _catalog(settings.catalog if catalog is None else catalog)
        if read_only:
            archive = open_archive(settings.ledger) if ledger is None or isinstance(ledger, str) else ledger
            return cls(ReadHost(archive, clock), archive, found, clock, settings)
        if isinstance(ledger, str) or ledger is None:
            if ray_open.is_chosen(settings):
                settings, on_ray = ray_open.open_host(settings, owner_with(settings))
                return cls(on_ray, ray_open.LateArchive(settings.ledger), found, clock, settings)
            if settings.ledger.startswith("sqlite:"):
                settings = with_settings(settings, ledger=f"sqlite:///{database_of(settings.ledger)}")  # in handles too
                return cls(_machine_host(settings, clock), open_archive(settings.ledger), found, clock, settings)
            spools = spool_base(settings.ledger) if is_postgres(settings.ledger) else None
            ledger = open_journal(settings.ledger, clock=clock)
        else:
            spools = None
        local = LocalHost(ledger, clock, timeout_seconds=settings.timeout_seconds, new_owner=owner_with(settings))
        return cls(local, ledger, found, clock, settings, spools=spools)

    @property
    def catalog(self) -> Catalog:
        """The catalog in force."""
        return self._catalog

    @property
    def archive(self) -> Archive:
        """The readers' side of the ledger."""
        return self._archive

    def customer(self, customer: str) -> Customer:
        """A customer's handle. Whether it exists shows at its first use (``unknown_customer``)."""
        return Customer(self.link(customer), self._archive)

    def link(self, customer: str, create: CreateCustomer | None = None) -> Link:
        """The way to one customer, shared by all its handles. ``create``: make it at its first session if it is not
        there."""
        link = self._links.get(customer_id(customer))
        if link is None:
            if len(self._links) >= MAX_LINKS:
                self._links.clear()
            ttl = self.settings.hold_ttl_seconds
            made = Link(
                self.host, customer, lambda: self._catalog, self.clock, hold_ttl_seconds=ttl, create=create,
                holder=self.holder, ledger=self.settings.ledger,
            )  # fmt: skip
            link = self._links.setdefault(customer, made)
        link.create = create or link.create
        return link

    def reload_catalog(self, catalog: str | Path | Catalog) -> Catalog:
        """Put another catalog in force without a restart: prices from the next step on, plans at each customer's next
        session. Raises ``CatalogError`` with every fault, and then the old one stays."""
        self._catalog = _catalog(catalog)
        if self.holder is not None:
            self.holder.catalog = self.host.publish_catalog(document_of(self._catalog))
        return self._catalog

    def _as_holder(self, host: Host, spools: str | None) -> Holder:
        """This process as a holder of leases, with a spool where the ledger outlives it."""
        ledger = self.settings.ledger
        path = ray_open.spool_base(ledger) if isinstance(host, RayHost) else spools
        path = database_of(ledger) if isinstance(host, MachineHost) else path
        if path is None:
            return Holder(host, self.clock)
        holder = Holder(host, self.clock, open_spool=partial(open_spool, path))
        host.on_nudge(holder.nudge)
        self.recovery = Recovery(path, host, holder.id)
        self.recovery.run()
        holder.on_pulse = self.recovery.run_as_owner
        holder.start()
        heard = weakref.WeakMethod(self._published)
        holder.on_beaten = lambda beaten: None if (tell := heard()) is None else tell(beaten)
        return holder

    def _published(self, beaten: Beaten) -> None:
        """Another process of the ledger put a catalog in force."""
        if self.holder is not None and beaten.catalog > self.holder.catalog:
            self._catalog, self.holder.catalog = catalog_of(beaten.document), beaten.catalog

    def settle_up(self) -> None:
        """Have everything that this process did on leases in the ledger now, instead of within a second."""
        for link in list(self._links.values()):
            link.settle_up()

    def sweep(self) -> None:
        """End what is overdue now (silent holds, old sessions, steps open too long); it happens by itself about once a second."""
        if self.holder is not None:
            self.holder.run_errands()
            self.holder.pulse()
        self.host.sweep()

    def close(self) -> None:
        """Answer what waits, write snapshots, give the ledger up. Open holds stay held for their holders. Again:
        nothing."""
        self.is_closed = True
        if self.holder is not None:
            self.holder.close()
        self.host.close()
        if isinstance(self.host, ReadHost | MachineHost | RayHost):
            _close_archive(self._archive)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import asyncio

        await asyncio.to_thread(self.close)


class Customers:
    """Every customer of the ledger."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def create(
        self, customer: str, plan: str = "local", *, time_zone: str = "UTC", anchor: datetime | None = None
    ) -> Customer:
        """Create a customer under a plan of the catalog. Again: the existing one; with another plan or zone:
        ``KeyConflict``.

        ``time_zone`` (IANA): where calendar windows turn.  ``anchor``: where an anchored plan's cycle starts (default:
        now)."""
        terms = self._runtime.catalog.terms(plan)
        self._runtime.link(customer).ask(CreateCustomer(terms, time_zone, to_us(anchor, "anchor")))
        return self._runtime.customer(customer)

    def list(self) -> list[str]:
        """Ids of all customers, in order."""
        return list(self._runtime.archive.customers())


class Ledger:
    """The whole ledger, for those who check it."""

    def __init__(self, archive: Archive, runtime: Runtime) -> None:
        self._archive, self._runtime = archive, runtime

    def verify(self, anchors: dict[str, Anchor] | None = None) -> LedgerReport:
        """Walk every customer's chain (law L7)."""
        from agentbudget.ledger.chain import verify_ledger

        self._runtime.settle_up()
        return verify_ledger(self._archive, anchors)

    def recover(self, *, orderly_shutdown: bool = False) -> Recovered:
        """Book what dead processes of this machine left, also what could not be booked whole before and was set aside; what is
        there for the first time is booked by itself. ``orderly_shutdown``: the machine was shut down in order before it was
        last started, so that files from before are whole (after a power failure their end may be missing)."""
        if self._runtime.recovery is None:
            return Recovered()
        return self._runtime.recovery.again(trust_other_boots=orderly_shutdown)

    def reconcile(self) -> list[Difference]:
        """Every difference between the accounts and the entries; empty is right. Ask while nothing is written."""
        from agentbudget.runtime.auditing import reconcile_ledger

        self._runtime.settle_up()
        return reconcile_ledger(self._archive)


def _catalog(source: str | Path | Catalog | None) -> Catalog:
    if isinstance(source, Catalog):
        return source
    return Catalog.bundled() if source is None else Catalog.load(source)


def _machine_host(settings: Settings, clock: Clock) -> MachineHost:
    """The host of a ledger file, which the processes of a machine share."""

    def open_store() -> Store:
        return open_journal(settings.ledger, synchronous=settings.synchronous, clock=clock)

    return MachineHost(
        open_store, database_of(settings.ledger), clock, timeout_seconds=settings.timeout_seconds,
        new_owner=owner_with(settings),
    )  # fmt: skip


def _close_archive(archive: Any) -> None:
    close: Callable[[], None] | None = getattr(archive, "close", None)
    if close is not None:
        close()
