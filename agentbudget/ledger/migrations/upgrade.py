"""Bring a ledger to the newest schema, in one transaction: a crash in the middle leaves the old schema whole."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool


def config() -> Config:
    """Alembic's settings, from this package: no file of the user's is read."""
    settings = Config()
    settings.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    settings.set_main_option("path_separator", "os")
    return settings


def upgrade(connect: Callable[[], sqlite3.Connection]) -> None:
    """Run the missing revisions on a connection of its own. Raises the driver's own error when the store refuses."""
    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool)
    event.listen(engine, "begin", _begin_immediate)
    settings = config()
    try:
        with engine.connect() as connection:
            settings.attributes["connection"] = connection
            command.upgrade(settings, "head")
    except DBAPIError as error:
        raise error.orig if error.orig is not None else error from None


def upgrade_postgres(connect: Callable[[], Any], schema: str) -> None:
    """The same in a schema of a PostgreSQL database, which is made when it is not there. Two processes that do it at once
    wait for each other. Raises the driver's own error when the database refuses."""
    engine = create_engine("postgresql+psycopg://", creator=connect, poolclass=NullPool)
    settings = config()
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql("SET LOCAL lock_timeout = '10s'")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock(hashtext('{schema} migration'))")
            if connection.exec_driver_sql(f"SELECT to_regnamespace('{schema}')").scalar() is None:
                connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
            connection.exec_driver_sql(f"SET LOCAL search_path = {schema}")
            settings.attributes["connection"] = connection
            command.upgrade(settings, "head")
    except DBAPIError as error:
        raise error.orig if error.orig is not None else error from None


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")  # the driver would start none before CREATE TABLE
