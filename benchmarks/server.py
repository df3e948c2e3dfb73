"""A small S3 server on loopback that adds a delay to each request, in a process of its own.

Only what readers of Zarr ask for: GET with or without a range, HEAD, and ListObjectsV2, for one
bucket and without looking at signatures. moto and aiohttp would be the bottleneck: aiohttp's
`FileResponse` needs 0.5 s for what this sends in 0.3 s by `sendfile`, of which S3 clients notice
no difference.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from types import TracebackType
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET = "bench"
DELAY = 0.02  # seconds added to each request
COUNTS = "/-counts"


@dataclass
class Counts:
    """What has been asked of the server."""

    requests: int = 0
    sent: int = 0  # bytes of objects
    most: int = 0  # requests in flight at the same time, since this was last asked


class Server:
    """The server's process, seen from the harness. Use as a context manager."""

    def __init__(self, folder: Path, delay: float = DELAY) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.server", str(folder), str(delay)],
            cwd=Path(__file__).parent.parent,
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
        with urllib.request.urlopen(self.endpoint + COUNTS, timeout=10) as answer:
            return Counts(**json.load(answer))

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._popen.terminate()
        self._popen.wait()


class _Handler:
    """Answers the requests of every connection."""

    def __init__(self, folder: Path, delay: float) -> None:
        self.folder = folder
        self.delay = delay
        self.counts = Counts()
        self.in_flight = 0

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                first, *lines = head.decode("latin-1").split("\r\n")
                method, target, _ = first.split(" ", 2)
                headers = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
                await self._answer(writer, method, target, headers)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(
        self, writer: asyncio.StreamWriter, method: str, target: str, headers: dict[str, str]
    ) -> None:
        url = urlsplit(target)
        if url.path == COUNTS:
            _send(writer, 200, json.dumps(vars(self.counts)).encode())
            self.counts.most = self.in_flight
            return
        self.counts.requests += 1
        self.in_flight += 1
        self.counts.most = max(self.counts.most, self.in_flight)
        try:
            await asyncio.sleep(self.delay)
            bucket, _, key = unquote(url.path).lstrip("/").partition("/")
            if bucket != BUCKET or method not in ("GET", "HEAD"):
                _send(writer, 405, b"")
            elif key:
                await self._object(writer, method, key, headers.get("range"))
            else:
                _send(writer, 200, self._listing(parse_qs(url.query)), "application/xml")
        finally:
            self.in_flight -= 1

    async def _object(
        self, writer: asyncio.StreamWriter, method: str, key: str, wanted: str | None
    ) -> None:
        try:
            file = open(self.folder / key, "rb")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            missing = b"<Error><Code>NoSuchKey</Code><Message>No such key.</Message></Error>"
            _send(writer, 404, missing * (method == "GET"), "application/xml")
            return
        with file:
            status = os.fstat(file.fileno())
            size = status.st_size
            start, stop = _range(wanted, size) if wanted else (0, size)
            more = [
                f'ETag: "{status.st_mtime_ns:x}-{size:x}"',
                f"Last-Modified: {formatdate(status.st_mtime, usegmt=True)}",
                "Accept-Ranges: bytes",
            ]
            if wanted:
                more.append(f"Content-Range: bytes {start}-{stop - 1}/{size}")
            writer.write(_head(206 if wanted else 200, stop - start, "binary/octet-stream", more))
            if method == "GET" and stop > start:
                loop = asyncio.get_running_loop()
                await loop.sendfile(writer.transport, file, start, stop - start)
                self.counts.sent += stop - start

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


def _range(wanted: str, size: int) -> tuple[int, int]:
    """Begin and end of `bytes=first-last`, `bytes=first-` or `bytes=-length`."""
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(size, int(last) + 1) if last else size


def _head(status: int, length: int, kind: str, more: list[str]) -> bytes:
    lines = [f"HTTP/1.1 {status} -", f"Content-Length: {length}", f"Content-Type: {kind}", *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _send(writer: asyncio.StreamWriter, status: int, body: bytes, kind: str = "text/plain") -> None:
    writer.write(_head(status, len(body), kind, []) + body)


async def _serve(folder: Path, delay: float) -> None:
    handler = _Handler(folder, delay)
    # So many may connect at the same time without being turned away.
    server = await asyncio.start_server(handler.connected, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), float(sys.argv[2])))
