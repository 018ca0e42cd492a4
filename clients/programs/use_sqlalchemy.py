"""SQLAlchemy 2 on psycopg 3: the functions by `func`, and the view as a table of the ORM."""

import os
from uuid import UUID

from sqlalchemy import BigInteger, FetchedValue, bindparam, create_engine, func, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

engine = create_engine(os.environ["DATABASE_URL"].replace("postgresql:", "postgresql+psycopg:"))


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)


# docs:
class OutboxEvent(Base):
    __tablename__ = "outbox_events"
    __table_args__ = {"schema": "sea_mq"}
    # The id alone is given back to a producer.
    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=FetchedValue())
    aggregate_type: Mapped[str]
    aggregate_id: Mapped[str]
    event_type: Mapped[str]
    payload: Mapped[dict] = mapped_column(JSONB)
# :docs


def emit(number):
    return select(func.sea_mq.emit("order", number, "OrderCreated", func.jsonb_build_object("n", number)))


with Session(engine) as session:
    # docs:
    with session.begin():
        session.add(Order(id=1))
        session.execute(select(func.sea_mq.emit("order", 1, "OrderCreated", text("""'{"n": 1}'"""))))
    # :docs
    session.add(Order(id=2))
    session.execute(emit(2))
    session.rollback()
    with session.begin():
        session.execute(emit(3))
        savepoint = session.begin_nested()
        session.execute(emit(4))
        savepoint.rollback()
    with session.begin():
        event = OutboxEvent(aggregate_type="order", aggregate_id="5", event_type="OrderCreated", payload={"n": 5})
        session.add(event)
        session.flush()
        assert event.id.version == 7
    with session.begin():
        events = [{"aggregate_type": "order", "aggregate_id": n, "event_type": "OrderCreated", "payload": {"n": n}} for n in (6, 7)]
        many = text("SELECT sea_mq.emit_array(:events)").bindparams(bindparam("events", type_=JSONB))
        session.execute(many, {"events": events})

left = 5
while left > 0:
    # docs:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
        messages = db.execute(text("SELECT id, payload FROM sea_mq.receive('app__pull', wait => '5 s')")).all()
    for message, payload in messages:
        with Session(engine) as session, session.begin():
            session.execute(text("INSERT INTO parcels (order_id) VALUES (:id)"), {"id": str(payload["n"])})
            session.execute(select(func.sea_mq.complete(message)))
    # :docs
    left -= len(messages)
