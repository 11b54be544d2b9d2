"""Answers read into place are what aiokafka's own connection would give, and end as its own would."""

import asyncio
import logging
import random
import struct
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import numpy as np
import pytest
from aiokafka import conn
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.fetch import FetchRequest, FetchRequest_v11
from aiokafka.protocol.metadata import MetadataRequest, MetadataRequest_v0
from aiokafka.structs import TopicPartition

from stream.engine.batch import SPARE_BYTES
from stream.intake import fetch, fetch_check, frames
from stream.intake.fetch import RawMemoryRecords, RawPartitionRecords
from stream.intake.fetch_check import rows_of
from stream.intake.record_sets import columns
from tests.intake.record_set_maker import Record, a_batch

Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

RECORDS = a_batch(*(Record(delta=i, key=b"k%d" % i, value=b"v" * 100) for i in range(200)))


@pytest.fixture(autouse=True)
def _restore_hooks() -> Iterator[None]:
    yield
    frames.uninstall()
    fetch.uninstall()


def an_answer(correlation_id: int, records: bytes | None = RECORDS) -> bytes:
    partitions: list[Any] = [(0, 0, 9, 9, 0, [], -1, records), (1, 0, 9, 9, 0, [], -1, b"small")]
    answer = FetchRequest_v11.RESPONSE_TYPE(0, 0, 0, [("topic", partitions)]).encode()
    return struct.pack(">ii", 4 + len(answer), correlation_id) + bytes(answer)


def fetch_request() -> FetchRequest:
    return FetchRequest(100, 1, 1 << 20, 0, [("topic", [(0, 0, 1 << 20)])])


async def a_connection(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, asyncio.Server]:
    """A connection of aiokafka's to a peer that speaks as a broker of today."""

    async def known(self: Any) -> None:
        self._versions = {FetchRequest.API_KEY: (0, 11), MetadataRequest.API_KEY: (0, 0)}

    monkeypatch.setattr(conn.AIOKafkaConnection, "_do_version_lookup", known)
    server = await asyncio.start_server(peer, "127.0.0.1", 0)
    return await conn.create_conn("127.0.0.1", server.sockets[0].getsockname()[1]), server


def talk(peer: Peer, say: Callable[[Any], Awaitable[Any]], monkeypatch: pytest.MonkeyPatch) -> Any:
    """What `say` returns of its talk with the peer, read into place."""

    async def scene() -> Any:
        frames.install()
        connection, server = await a_connection(peer, monkeypatch)
        assert isinstance(connection, frames.FrameConnection)
        try:
            return await asyncio.wait_for(say(connection), 20)
        finally:
            connection.close()
            server.close()
            await server.wait_closed()

    return asyncio.run(scene())


@pytest.mark.parametrize("seed", range(5))
def test_however_answers_are_cut_they_are_whole(seed: int) -> None:
    choose = random.Random(seed)
    bodies = [choose.randbytes(choose.choice([1, 4, 4095, 4096, 70_000])) for _ in range(30)]
    left = memoryview(b"".join(struct.pack(">i", len(body)) + body for body in bodies))
    loop = asyncio.new_event_loop()
    protocol = frames.FrameProtocol(loop.create_future(), asyncio.StreamReader(loop=loop), loop=loop)
    while left:
        room = protocol.get_buffer(-1)
        size = min(len(room), len(left), choose.randrange(1, 10_000))
        room[:size] = left[:size]
        protocol.buffer_updated(size)
        left = left[size:]
    loop.close()
    read = [protocol.frames.get_nowait() for _ in bodies]
    assert [bytes(frame.view) for frame in read if isinstance(frame, frames.Frame)] == bodies


def test_a_large_record_set_stays_where_it_was_received_up_to_the_columns() -> None:
    frame = frames.Frame(20 + len(RECORDS))
    frame.view[20:] = RECORDS
    assert type(frame.read(20)) is bytes
    part = frame.read(len(RECORDS))
    assert isinstance(part, memoryview)
    reader = RawPartitionRecords(
        TopicPartition("t", 0), RawMemoryRecords(part), None, 0, check_crcs=True, read_committed=False
    )
    read = columns(list(reader))
    assert np.shares_memory(read.buf, np.frombuffer(frame.view, np.uint8))
    assert read.buf.flags.writeable
    assert [value for *_, value in rows_of(read)] == [b"v" * 100] * 200
    assert len(read.buf) >= int(read.value_pos[-1] + read.value_len[-1]) + SPARE_BYTES


def test_a_small_part_does_not_keep_a_large_frame_in_memory() -> None:
    frame = frames.Frame(1 << 20)
    assert isinstance(frame.read(100_000), bytes)
    assert isinstance(frame.read(200_000), memoryview)


def test_answers_to_fetches_and_to_others_reach_who_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for correlation_id in (1, 2, 3):
            await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))
            if correlation_id == 2:
                body = MetadataRequest_v0.RESPONSE_TYPE([(7, "here", 9092)], []).encode()
                writer.write(struct.pack(">ii", 4 + len(body), correlation_id) + body)
            else:
                writer.write(an_answer(correlation_id))
        writer.close()

    async def ask(connection: Any) -> list[Any]:
        requests = [fetch_request(), MetadataRequest([]), fetch_request()]
        return list(await asyncio.gather(*(connection.send(request) for request in requests)))

    first, metadata, second = talk(broker, ask, monkeypatch)
    plain = FetchRequest_v11.RESPONSE_TYPE.decode(an_answer(1)[8:])
    assert first == second == plain
    assert metadata.brokers == [(7, "here", 9092)]


@pytest.mark.parametrize(
    "answer", [b"", an_answer(1)[:3], an_answer(1)[:-1], struct.pack(">i", 0), struct.pack(">i", -1)]
)
def test_a_connection_that_ends_early_fails_who_waits(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(4)
        writer.write(answer)
        writer.close()

    async def ask(connection: Any) -> bool:
        with pytest.raises(KafkaConnectionError):
            await connection.send(fetch_request())
        return bool(connection.connected())

    assert talk(broker, ask, monkeypatch) is False


def test_an_answer_to_something_else_closes_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(4)
        writer.write(an_answer(99))
        await reader.read()
        writer.close()

    async def ask(connection: Any) -> None:
        with pytest.raises(Exception, match="Correlation ids do not match: sent 1, recv 99"):
            await connection.send(fetch_request())
        assert not connection.connected()

    talk(broker, ask, monkeypatch)


def test_an_aiokafka_whose_connections_are_otherwise_keeps_them(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert fetch_check.why_no_frames() == ""

    class Renamed(conn.AIOKafkaConnection):  # type: ignore[misc]
        def _handle_frame(self, answer: bytes) -> None: ...

    monkeypatch.setattr(frames, "PLAIN", (frames.PLAIN[0], Renamed))
    assert fetch_check.why_no_frames() == "AIOKafkaConnection._handle_frame takes other arguments"
    with caplog.at_level(logging.ERROR):
        assert fetch_check.choose(frozenset({"impressions"})) is True
    assert "does not fit this aiokafka" in caplog.text
    assert conn.AIOKafkaConnection is Renamed
    monkeypatch.undo()
    fetch_check.choose(frozenset(), plain=True)
    assert (conn.AIOKafkaProtocol, conn.AIOKafkaConnection) == frames.PLAIN
