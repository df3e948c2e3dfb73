"""A small S3 server on loopback that delays and spoils requests, in a process of its own.

Over a folder only what readers of Zarr ask for: GET with or without a range, HEAD, and
ListObjectsV2, for one bucket and without looking at signatures. moto and aiohttp would be the
bottleneck: aiohttp's `FileResponse` needs 0.5 s for what this sends in 0.3 s by `sendfile`, of
which S3 clients notice no difference. Without a folder it stands before moto, which does all of S3.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import struct
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from email.utils import formatdate
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET = "bench"
DELAY = 0.02  # seconds added to each request
# Where the server is asked for what it counts, for each request, and told what to spoil.
COUNTS, LOG, FAULTS = "/-counts", "/-log", "/-faults"
MESSAGES = {"500": "InternalError", "503": "SlowDown"}


# An error of the server, "slow down", a connection that is reset before an answer or in the middle
# of a body, and no answer at all.
KINDS = ("500", "503", "reset", "cut")
STALL = "stall"


@dataclass
class Faults:
    """How often requests for objects fail or take long.

    An object that has failed `times` times in a row is sent, whatever is drawn for it.
    """

    failing: float = 0.0  # share of requests
    kinds: tuple[str, ...] = KINDS
    times: int = 1
    slow: float = 0.0  # share of requests
    seconds: float = 1.0  # that these take longer
    keys: str = ""  # only of objects whose key has this in it
    seed: int = 0
    _failed: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def draw(self, key: str) -> tuple[str, float]:
        """How a request for an object fails ("" for not at all), and seconds it takes longer."""
        if self.keys not in key:
            return "", 0.0
        longer = self.seconds if self._random.random() < self.slow else 0.0
        before = self._failed.pop(key, 0)
        fails = before or self._random.random() < self.failing
        if not fails or before == self.times:
            return "", longer
        self._failed[key] = before + 1
        return self._random.choice(self.kinds), longer


@dataclass
class Counts:
    """What has been asked of the server."""

    requests: int = 0
    sent: int = 0  # bytes of objects
    most: int = 0  # requests in flight at the same time, since this was last asked
    failed: int = 0  # requests that were made to fail
    slowed: int = 0


class Server:
    """The server's process, seen from outside. Use as a context manager.

    Parameters
    ----------
    folder : Path, optional
        What it serves; by default a moto of its own, in which there is nothing.
    delay : float
        Seconds added to each request.
    """

    def __init__(self, folder: Path | None = None, delay: float = DELAY) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, __file__, str(folder or ""), str(delay)],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            text=True,
        )
        assert self._popen.stdout is not None
        port = self._popen.stdout.readline().strip()
        if not port:
            raise RuntimeError("the S3 server did not start")
        self.endpoint = f"http://127.0.0.1:{port}"

    def counts(self) -> Counts:
        """What has been asked so far."""
        return Counts(**self._ask(COUNTS))

    def log(self) -> list[tuple[str, str, str, str]]:
        """Method, key, range and fault of each request since this was last asked."""
        return [tuple(each) for each in self._ask(LOG)]

    def spoil(self, faults: Faults | None = None) -> None:
        """Let requests fail or take longer from now on, or no more."""
        given = {k: v for k, v in asdict(faults or Faults()).items() if not k.startswith("_")}
        self._ask(FAULTS, json.dumps(given).encode())

    def _ask(self, path: str, body: bytes | None = None) -> Any:
        with urllib.request.urlopen(self.endpoint + path, body, timeout=10) as answer:
            return json.load(answer)

    def close(self) -> None:
        """End the process."""
        self._popen.terminate()
        self._popen.wait()
        for pipe in (self._popen.stdin, self._popen.stdout):
            assert pipe is not None
            pipe.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()


@dataclass(frozen=True)
class _Request:
    method: str
    target: str
    head: bytes
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class _Answer:
    """Status, lines of the head, and the body: bytes, or a part of a file."""

    status: int
    lines: list[str]
    length: int
    body: bytes | tuple[Path, int] = b""


class _Backend(Protocol):
    async def answer(self, request: _Request) -> _Answer:
        """What to answer."""
        ...


class _Handler:
    """Answers the requests of every connection."""

    def __init__(self, backend: _Backend, delay: float) -> None:
        self.backend = backend
        self.delay = delay
        self.counts = Counts()
        self.log: list[tuple[str, str, str, str]] = []
        self.faults = Faults()
        self.in_flight = 0

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                first, *lines = head.decode("latin-1").split("\r\n")
                method, target, _ = first.split(" ", 2)
                headers = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
                if "expect" in headers:
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                await self._answer(reader, writer, _Request(method, target, head, headers, body))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: _Request
    ) -> None:
        path = urlsplit(request.target).path
        if path in (COUNTS, LOG, FAULTS):
            _write(writer, self._told(path, request.body))
            return
        key = unquote(path).lstrip("/").partition("/")[2]
        wanted = request.headers.get("range", "")
        fault, longer = "", 0.0
        if request.method == "GET" and key:
            fault, longer = self.faults.draw(key)
        self.log.append((request.method, key, wanted, fault))
        self.counts.requests += 1
        self.counts.failed += bool(fault)
        self.counts.slowed += bool(longer)
        self.in_flight += 1
        self.counts.most = max(self.counts.most, self.in_flight)
        try:
            await asyncio.sleep(self.delay + longer)
            if fault == STALL:
                await reader.read(1)  # until the client gives up
                raise ConnectionResetError
            if fault == "reset":
                _reset(writer)
            if fault in MESSAGES:
                _write(writer, _error(int(fault), MESSAGES[fault], request.method))
                return
            answer = await self.backend.answer(request)
            sent = await _send(writer, answer, request.method == "GET", cut=fault == "cut")
            self.counts.sent += sent if key else 0
        finally:
            self.in_flight -= 1

    def _told(self, path: str, body: bytes) -> _Answer:
        found: Any = None
        if path == COUNTS:
            found = asdict(self.counts)
            self.counts.most = self.in_flight
        elif path == LOG:
            found, self.log = self.log, []
        else:
            self.faults = Faults(**json.loads(body))
        return _whole(200, json.dumps(found).encode())


class _Folder:
    """Objects are the files of a folder, in one bucket."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def answer(self, request: _Request) -> _Answer:
        url = urlsplit(request.target)
        bucket, _, key = unquote(url.path).lstrip("/").partition("/")
        if bucket != BUCKET or request.method not in ("GET", "HEAD"):
            return _whole(405, b"")
        if not key:
            return _whole(200, self._listing(parse_qs(url.query)), "application/xml")
        try:
            status = (self.folder / key).stat()
        except (FileNotFoundError, NotADirectoryError):
            return _error(404, "NoSuchKey", request.method)
        if not (self.folder / key).is_file():
            return _error(404, "NoSuchKey", request.method)
        wanted, size = request.headers.get("range"), status.st_size
        start, stop = _range(wanted, size) if wanted else (0, size)
        lines = [
            f'ETag: "{status.st_mtime_ns:x}-{size:x}"',
            f"Last-Modified: {formatdate(status.st_mtime, usegmt=True)}",
            "Accept-Ranges: bytes",
            "Content-Type: binary/octet-stream",
        ]
        if wanted:
            lines.append(f"Content-Range: bytes {start}-{stop - 1}/{size}")
        return _Answer(206 if wanted else 200, lines, stop - start, (self.folder / key, start))

    def _listing(self, query: dict[str, list[str]]) -> bytes:
        """ListObjectsV2; never cut into pages."""
        prefix = query.get("prefix", [""])[0]
        delimiter = query.get("delimiter", [""])[0]
        parent = self.folder / prefix.rpartition("/")[0]
        keys, folders = [], []
        if parent.is_dir():
            for path in sorted(parent.iterdir() if delimiter else parent.rglob("*")):
                name = path.relative_to(self.folder).as_posix()
                if name.startswith(prefix):
                    if path.is_file():
                        keys.append((name, path.stat()))
                    elif delimiter:
                        folders.append(name + delimiter)
        entries = [
            f"<Contents><Key>{escape(name)}</Key><Size>{found.st_size}</Size><ETag>"
            f'"{found.st_mtime_ns:x}"</ETag><LastModified>2000-01-01T00:00:00.000Z</LastModified>'
            "<StorageClass>STANDARD</StorageClass></Contents>"
            for name, found in keys
        ] + [
            f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in folders
        ]
        return (
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{BUCKET}</Name><Prefix>{escape(prefix)}</Prefix>"
            f"<KeyCount>{len(entries)}</KeyCount><MaxKeys>1000</MaxKeys>"
            f"<IsTruncated>false</IsTruncated>{''.join(entries)}</ListBucketResult>"
        ).encode()


class _Moto:
    """A moto in a thread of this process, asked over a connection of its own each time."""

    def __init__(self) -> None:
        import logging

        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        server.start()
        self.address = server.get_host_and_port()

    async def answer(self, request: _Request) -> _Answer:
        first, *lines = request.head.decode("latin-1").rstrip().split("\r\n")
        kept = [each for each in lines if not each.lower().startswith(("expect:", "connection:"))]
        reader, writer = await asyncio.open_connection(*self.address)
        with contextlib.closing(writer):
            head = "\r\n".join([first, *kept, "Connection: close"]) + "\r\n\r\n"
            writer.write(head.encode("latin-1") + request.body)
            answered = await reader.readuntil(b"\r\n\r\n")
            body = await reader.read()
        first, *lines = answered.decode("latin-1").rstrip().split("\r\n")
        length = len(body)
        kept = []
        for each in lines:
            name, _, value = each.partition(": ")
            if name.lower() == "content-length" and request.method == "HEAD":
                length = int(value)
            elif name.lower() not in ("connection", "content-length"):
                kept.append(each)
        return _Answer(int(first.split(" ")[1]), kept, length, body)


def _range(wanted: str, size: int) -> tuple[int, int]:
    """Begin and end of `bytes=first-last`, `bytes=first-` or `bytes=-length`."""
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(size, int(last) + 1) if last else size


def _whole(status: int, body: bytes, kind: str = "text/plain") -> _Answer:
    return _Answer(status, [f"Content-Type: {kind}"], len(body), body)


def _error(status: int, code: str, method: str) -> _Answer:
    body = f"<Error><Code>{code}</Code><Message>{code}, as was wanted.</Message></Error>".encode()
    return _whole(status, body * (method != "HEAD"), "application/xml")


def _head(answer: _Answer) -> bytes:
    lines = [f"HTTP/1.1 {answer.status} -", f"Content-Length: {answer.length}", *answer.lines]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _write(writer: asyncio.StreamWriter, answer: _Answer) -> None:
    assert isinstance(answer.body, bytes)
    writer.write(_head(answer) + answer.body)


async def _send(
    writer: asyncio.StreamWriter, answer: _Answer, with_body: bool, cut: bool = False
) -> int:
    """Send an answer, perhaps half of it; the bytes of its body that were sent."""
    length = answer.length // 2 if cut else answer.length
    if isinstance(answer.body, bytes):
        writer.write(_head(answer) + answer.body[: length if cut else None])
    else:
        writer.write(_head(answer))
        if with_body and length:
            path, start = answer.body
            with open(path, "rb") as file:
                loop = asyncio.get_running_loop()
                await loop.sendfile(writer.transport, file, start, length)
    if cut:
        await writer.drain()
        await asyncio.sleep(0.01)  # for the client to see it
        _reset(writer)
    return length if with_body else 0


def _reset(writer: asyncio.StreamWriter) -> None:
    """Reset a connection, as a machine does that has gone."""
    at_once = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
    writer.transport.abort()
    raise ConnectionResetError


async def _serve(folder: str, delay: float) -> None:
    handler = _Handler(_Folder(Path(folder)) if folder else _Moto(), delay)
    # So many may connect at the same time without being turned away.
    server = await asyncio.start_server(handler.connected, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    loop.add_reader(sys.stdin, lambda: ended.done() or ended.set_result(sys.stdin.read()))
    async with server:
        await ended  # whoever has started it is gone


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], float(sys.argv[2])))
