"""What a broker answers, received where it stays: aiokafka's own connection copies every answer four times.

An answer (a *frame*) is read from the socket into memory of its own, and large record sets are views of that memory up
to the columns. Everything but the answers to fetches goes on to aiokafka as before. See fetch_check for the fall-back.
"""

import asyncio
import struct
import time
from typing import Any

import numpy as np
from aiokafka import conn
from aiokafka.protocol.fetch import FetchRequest

from stream.engine.batch import SPARE_BYTES

# The two names of aiokafka.conn that are replaced; fetch_check and a test pin how they are used.
HOOKS = ("AIOKafkaProtocol", "AIOKafkaConnection")
PLAIN = tuple(getattr(conn, name) for name in HOOKS)

_LEAST_VIEW_SHARE = 8  # a view keeps the whole frame in memory, so smaller parts of it are copied
_SIZE_BYTES = 4


class Frame:
    """One answer, without its size, as the stream that aiokafka's decoders read from. SPARE_BYTES follow it."""

    __slots__ = ("_at", "_least_view", "view")

    def __init__(self, size: int) -> None:
        self.view = memoryview(np.empty(size + SPARE_BYTES, np.uint8).data)[:size]
        self._least_view = max(size // _LEAST_VIEW_SHARE, 4096)
        self._at = 0

    def read(self, size: int) -> bytes | memoryview:
        """The next bytes, fewer at the end: a view where there are many."""
        part = self.view[self._at : self._at + size]
        self._at += len(part)
        return part if len(part) >= self._least_view else bytes(part)


class FrameProtocol(conn.AIOKafkaProtocol, asyncio.BufferedProtocol):  # type: ignore[misc]
    """Stands in for AIOKafkaProtocol: reads whole frames into `frames`, and the error that ends the connection."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.frames: asyncio.Queue[Frame | BaseException] = asyncio.Queue()
        self._size = memoryview(bytearray(_SIZE_BYTES))
        self._frame: Frame | None = None  # None while its size is read
        self._left = self._size

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes belong."""
        return self._left

    def buffer_updated(self, nbytes: int) -> None:
        """So many are there."""
        self._left = self._left[nbytes:]
        if self._left:
            return
        if self._frame is not None:
            self.frames.put_nowait(self._frame)
            self._frame, self._left = None, self._size
            return
        (size,) = struct.unpack(">i", self._size)
        if size <= 0:  # nothing can be read behind it
            self._left = memoryview(bytearray(1))
            self.frames.put_nowait(ConnectionError(f"the broker announced an answer of {size} bytes"))
            return
        self._frame = Frame(size)
        self._left = self._frame.view

    def eof_received(self) -> bool | None:
        """The broker will send nothing more."""
        self.frames.put_nowait(EOFError("the broker closed the connection"))
        answer: bool | None = super().eof_received()
        return answer

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more comes."""
        super().connection_lost(exc)
        self.frames.put_nowait(exc or EOFError("the connection is closed"))


class FrameConnection(conn.AIOKafkaConnection):  # type: ignore[misc]
    """Stands in for AIOKafkaConnection: takes frames from a FrameProtocol."""

    @staticmethod
    async def _read(self_ref: Any) -> None:
        if (self := self_ref()) is None:
            return
        frames = self._protocol.frames
        del self  # else it would never be collected
        while True:
            frame = await frames.get()
            if isinstance(frame, BaseException):
                raise frame
            if (self := self_ref()) is None:
                return
            self.take(frame)
            del self

    def take(self, frame: Frame) -> None:
        """Give an answer to whoever waits for it; answers come in the order of the requests."""
        correlation_id, request, answer = self._requests[0]
        if (
            getattr(request, "API_KEY", None) != FetchRequest.API_KEY
            or answer.done()
            or request.parse_response_header(frame).correlation_id != correlation_id
        ):
            self._handle_frame(bytes(frame.view))
            return
        answer.set_result(request.RESPONSE_TYPE.decode(frame))
        self._last_action = time.monotonic()
        self._requests.popleft()


def install() -> None:
    """Let connections that are made from now on keep frames where they were received."""
    conn.AIOKafkaProtocol, conn.AIOKafkaConnection = FrameProtocol, FrameConnection


def uninstall() -> None:
    """Let aiokafka read its connections itself."""
    conn.AIOKafkaProtocol, conn.AIOKafkaConnection = PLAIN
