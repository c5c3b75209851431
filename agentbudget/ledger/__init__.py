"""The ledger: entries in a chain, the journal that makes them durable, and everything that can be proven from them
alone."""

from __future__ import annotations

from agentbudget.ledger.audit import Difference, reconcile
from agentbudget.ledger.chain import Anchor, Fault, LedgerReport, VerifyReport, verify, verify_ledger
from agentbudget.ledger.entry import Draft, Entry, Posting, Sealed, decode, genesis, hash_of, seal
from agentbudget.ledger.fold import Balances, fold, verify_and_fold
from agentbudget.ledger.journal import Archive, Batch, DenialNote, Journal, Loaded, Snapshot
from agentbudget.ledger.store import Store, open_archive, open_journal
from agentbudget.ledger.transfer import ImportReport, export_lines, import_lines

__all__ = [
    "Anchor",
    "Archive",
    "Balances",
    "Batch",
    "DenialNote",
    "Difference",
    "Draft",
    "Entry",
    "Fault",
    "ImportReport",
    "Journal",
    "LedgerReport",
    "Loaded",
    "Posting",
    "Sealed",
    "Snapshot",
    "Store",
    "VerifyReport",
    "decode",
    "export_lines",
    "fold",
    "genesis",
    "hash_of",
    "import_lines",
    "open_archive",
    "open_journal",
    "reconcile",
    "seal",
    "verify",
    "verify_and_fold",
    "verify_ledger",
]
