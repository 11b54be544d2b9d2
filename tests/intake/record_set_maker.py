"""Random Kafka record sets, encoded by hand so that they can hold what no producer of ours would send."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from aiokafka.record.util import calc_crc32c, encode_varint

CODECS = range(5)  # none, gzip, snappy, lz4, zstd
APPEND_TIME, TRANSACTIONAL, CONTROL = 8, 16, 32

Header = tuple[str, bytes | None]


@dataclass(frozen=True)
class Record:
    delta: int = 0
    at_ms: int = 1_700_000_000_000
    key: bytes | None = b"user"
    value: bytes | None = b"value"
    headers: Sequence[Header] = ()


@dataclass
class RecordSet:
    """data: what a broker answers; aborted: (producer, first offset); wanted: the offset that was asked for."""

    data: bytes
    aborted: list[tuple[int, int]]
    wanted: int
    heads: list[int] = field(default_factory=list)  # where each batch begins


def zigzag(number: int) -> bytes:
    out = bytearray()
    encode_varint(number, out.append)
    return bytes(out)


def text(data: bytes | None) -> bytes:
    return zigzag(-1) if data is None else zigzag(len(data)) + data


def encode(record: Record, first_ms: int) -> bytes:
    body = (
        b"\0" + zigzag(record.at_ms - first_ms) + zigzag(record.delta) + text(record.key) + text(record.value)
    )
    body += zigzag(len(record.headers)) + b"".join(text(k.encode()) + text(v) for k, v in record.headers)
    return zigzag(len(body)) + body


def pack(codec: int, body: bytes, *, xerial: bool = False) -> bytes:
    if codec == 1:
        return gzip_encode(body, 1)
    if codec == 2:
        return snappy_encode(
            body, xerial_compatible=xerial and bool(body)
        )  # aiokafka cannot read an empty stream
    if codec == 3:
        return lz4_encode(body, 1)
    return zstd_encode(body, 1) if codec == 4 else body


def a_batch(
    *records: Record,
    base: int = 0,
    last: int | None = None,
    codec: int = 0,
    attributes: int = 0,
    producer: int = -1,
    xerial: bool = False,
    body: bytes | None = None,
) -> bytes:
    """One batch; `body` replaces the (packed) records, to lie about them."""
    first_ms = records[0].at_ms if records else 0
    max_ms = max((r.at_ms for r in records), default=0)
    packed = (
        pack(codec, b"".join(encode(r, first_ms) for r in records), xerial=xerial) if body is None else body
    )
    if last is None:
        last = max((r.delta for r in records), default=0)
    covered = struct.pack(
        ">hiqqqhii", attributes | codec, last, first_ms, max_ms, producer, 0, 0, len(records)
    )
    covered += packed
    return struct.pack(">qiibI", base, len(covered) + 9, 7, 2, calc_crc32c(covered)) + covered


def a_marker(base: int, producer: int, *, aborts: bool) -> bytes:
    """The control batch at the end of a transaction."""
    record = Record(key=struct.pack(">hh", 0, 0 if aborts else 1), value=b"\0" * 6)
    return a_batch(record, base=base, attributes=TRANSACTIONAL | CONTROL, producer=producer)


def some_bytes(random: Random, *, large: bool) -> bytes | None:
    kind = random.random()
    if kind < 0.08:
        return None
    if kind < 0.16:
        return b""
    if kind < 0.20 and large:
        return random.randbytes(random.randrange(20_000, 300_000))
    if kind < 0.6:
        return (b"user-%08d" % random.randrange(1000)) * random.randrange(1, 20)
    return random.randbytes(random.randrange(1, 300))


def some_headers(random: Random) -> list[Header]:
    values = (None, b"", b"x" * random.randrange(1, 40))
    return [
        (f"h{i}" * random.randrange(3), random.choice(values)) for i in range(random.choice([0, 0, 0, 1, 3]))
    ]


def some_records(random: Random) -> list[Record]:
    """Records with gaps as compaction leaves them, times that may run backwards."""
    count = random.choice([0, 1, 1, 2, 3, 20, 100])
    first_ms = random.randrange(1 << 41)
    spread = (-(10**6), 10**6) if random.random() < 0.3 else (0, 1000)
    records = []
    delta = 0
    for _ in range(count):
        if random.random() < 0.1:
            delta += random.randrange(1, 50)
        at_ms = max(0, first_ms + random.randrange(*spread))
        key, value = some_bytes(random, large=False), some_bytes(random, large=count < 4)
        records.append(Record(delta, at_ms, key, value, some_headers(random)))
        delta += 1
    return records


def a_record_set(random: Random, *, codecs: Sequence[int], transactions: bool) -> RecordSet:
    """Batches with gaps within and between them, control batches, open, committed and aborted transactions."""
    made = RecordSet(b"", [], 0)
    offset = start = random.choice([0, 0, 5, 1 << 33])
    bounds: list[tuple[int, int]] = []
    running: dict[int, tuple[int, bool]] = {}  # producer: first offset, will abort

    def add(batch: bytes, size: int) -> None:
        nonlocal offset
        made.heads.append(len(made.data))
        made.data += batch
        offset += size

    for _ in range(random.choice([0, 1, 1, 2, 3, 8, 40])):
        records = some_records(random)
        last = max((r.delta for r in records), default=0) + (
            random.randrange(30) if random.random() < 0.2 else 0
        )
        attributes = APPEND_TIME if random.random() < 0.15 else 0
        producer = -1
        if transactions and random.random() < 0.6:
            producer = random.randrange(1, 4)
            attributes |= TRANSACTIONAL
            running.setdefault(producer, (offset, random.random() < 0.5))
        bounds.append((offset, offset + last))
        codec, xerial = random.choice(codecs), random.random() < 0.5
        batch = a_batch(
            *records,
            base=offset,
            last=last,
            codec=codec,
            attributes=attributes,
            producer=producer,
            xerial=xerial,
        )
        add(batch, last + 1)
        if running and random.random() < 0.4:
            producer = random.choice(list(running))
            first, aborts = running.pop(producer)
            if aborts:
                made.aborted.append((producer, first))
            add(a_marker(offset, producer, aborts=aborts), 1)
        elif random.random() < 0.05:
            add(a_marker(offset, 9, aborts=random.random() < 0.5), 1)
        if random.random() < 0.1:
            offset += random.randrange(1, 100)
    made.aborted += [(producer, first) for producer, (first, aborts) in running.items() if aborts]
    made.wanted = random.randint(*bounds[0]) if bounds and random.random() < 0.5 else start
    return made
