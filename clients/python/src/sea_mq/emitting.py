"""emit in the transaction that the caller has open, in whatever library the caller has it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import Any
from uuid import UUID

# Every parameter has its type: what the driver binds does not matter.
_TYPES = {
    "aggregate_type": "text",
    "aggregate_id": "text",
    "event_type": "text",
    "payload": "jsonb",
    "event_version": "integer",
    "context": "text",
    "event_id": "uuid",
    "correlation_id": "text",
    "causation_id": "text",
    "headers": "jsonb",
    "visibility": "text",
    "available_at": "timestamptz",
}


def emit(
    db: Any,
    aggregate_type: str,
    aggregate_id: str | int | UUID,
    event_type: str,
    payload: Any,
    *,
    event_version: int | None = None,
    context: str | None = None,
    event_id: UUID | str | None = None,
    correlation_id: str | None = None,
    causation_id: str | None = None,
    headers: Mapping[str, str] | None = None,
    visibility: str | None = None,
    available_at: datetime | None = None,
) -> UUID:
    """Emits an event in the transaction of `db`, and returns its id. It exists if and only if that transaction commits.

    `db` is a connection or cursor of psycopg 3 or 2, a connection of Django, or a Connection or Session of SQLAlchemy.
    """
    sql, values = _call(locals(), "%s::text::")
    return UUID(str(_rows(db, sql, values)[0][0]))


async def emit_async(
    db: Any,
    aggregate_type: str,
    aggregate_id: str | int | UUID,
    event_type: str,
    payload: Any,
    *,
    event_version: int | None = None,
    context: str | None = None,
    event_id: UUID | str | None = None,
    correlation_id: str | None = None,
    causation_id: str | None = None,
    headers: Mapping[str, str] | None = None,
    visibility: str | None = None,
    available_at: datetime | None = None,
) -> UUID:
    """As `emit`, with an AsyncConnection of psycopg 3, a connection of asyncpg, or an AsyncConnection or AsyncSession of
    SQLAlchemy."""
    sql, values = _call(locals(), "$n::text::" if _is_asyncpg(db) else "%s::text::")
    return UUID(str((await _rows_async(db, sql, values))[0][0]))


def emit_many(db: Any, events: Iterable[Mapping[str, Any]]) -> list[UUID]:
    """Emits many events in order, all or none. Each is a mapping whose keys are the parameters of `emit`."""
    rows = _rows(db, "SELECT sea_mq.emit_array(%s::text::jsonb)", [_array(events)])
    return [UUID(str(row[0])) for row in rows]


async def emit_many_async(db: Any, events: Iterable[Mapping[str, Any]]) -> list[UUID]:
    """As `emit_many`, for the connections of `emit_async`."""
    place = "$1" if _is_asyncpg(db) else "%s"
    rows = await _rows_async(db, f"SELECT sea_mq.emit_array({place}::text::jsonb)", [_array(events)])
    return [UUID(str(row[0])) for row in rows]


def _array(events: Iterable[Mapping[str, Any]]) -> str:
    return _json([{key: value for key, value in event.items() if value is not None or key == "payload"} for event in events])


def _json(value: Any) -> str:
    return json.dumps(value, default=_plain)


def _plain(value: object) -> str:
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not JSON: {value!r}")


def _call(given: Mapping[str, Any], place: str) -> tuple[str, list[str]]:
    """The statement, and its values as text. A payload that is None is JSON's null; others that are None are left out."""
    parts, values = [], []
    for name, type_name in _TYPES.items():
        value = given[name]
        if type_name == "jsonb" and (value is not None or name == "payload"):
            value = _json(value)
        elif isinstance(value, datetime):
            value = value.isoformat()
        if value is not None:
            values.append(str(value))
            parts.append(f"{name} => {place.replace('n', str(len(values)), 1) if place.startswith('$') else place}{type_name}")
    return f"SELECT sea_mq.emit({', '.join(parts)})", values


def _rows(db: Any, sql: str, values: list[str]) -> Any:
    if hasattr(db, "exec_driver_sql"):  # a Connection of SQLAlchemy
        return db.exec_driver_sql(sql, tuple(values)).fetchall()
    if hasattr(db, "get_bind"):  # a Session of it
        return _rows(db.connection(), sql, values)
    if not hasattr(db, "execute"):  # a connection of Django or psycopg 2
        with db.cursor() as cursor:
            return _rows(cursor, sql, values)
    cursor = db.execute(sql, values)
    return [_first(row) for row in (db if cursor is None else cursor).fetchall()]  # psycopg 2 returns None


async def _rows_async(db: Any, sql: str, values: list[str]) -> Any:
    if _is_asyncpg(db):
        return await db.fetch(sql, *values)
    if hasattr(db, "exec_driver_sql"):
        return (await db.exec_driver_sql(sql, tuple(values))).fetchall()
    if hasattr(db, "get_bind"):
        return await _rows_async(await db.connection(), sql, values)
    return [_first(row) for row in await (await db.execute(sql, values)).fetchall()]


def _first(row: Any) -> tuple[Any]:
    """The first column, whatever rows look like in this connection."""
    return (next(iter(row.values())),) if isinstance(row, Mapping) else (row[0],)


def _is_asyncpg(db: Any) -> bool:
    return hasattr(db, "fetchval")
