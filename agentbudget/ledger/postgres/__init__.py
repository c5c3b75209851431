"""The ledger on PostgreSQL, for many machines. Needs the extra ``postgres``."""
