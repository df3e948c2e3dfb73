"""A web server on loopback that serves a folder, may ask who asks, and may never answer."""

import re
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer


class WebServer(ThreadingHTTPServer):
    """Serves a folder in threads of this process. Use as a context manager.

    Parameters
    ----------
    folder : Path
        What it serves.
    allowed : callable, optional
        Whether a request, given by path and headers, may have what it asks for.

    Attributes
    ----------
    silent : threading.Event
        While it is set, no part of the data is answered.
    asked : threading.Event
        Set by a request that is not answered.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, folder, allowed=lambda path, headers: True):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.allowed = folder, allowed
        self.silent, self.asked = threading.Event(), threading.Event()
        self._ended = threading.Event()
        self.host = f"127.0.0.1:{self.server_address[1]}"

    def wait(self):
        """Wait, and let the client wait, until the server ends."""
        self.asked.set()
        self._ended.wait()

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self._ended.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        """Say nothing of clients that have gone."""


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        server, path = self.server, self.path.partition("?")[0]
        if server.silent.is_set() and ("/c/" in path or path.endswith(".nc")):
            server.wait()
            self.close_connection = True
            return
        file = server.folder / path.lstrip("/")
        if not server.allowed(self.path, self.headers):
            self._send(403, b"")
        elif not file.is_file():
            self._send(404, b"")
        else:
            self._send(200, file.read_bytes())

    def _send(self, status, data):
        lines = {"Accept-Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted and status == 200:
            start, stop = int(wanted[1]), min(len(data), int(wanted[2] or len(data)) + 1)
            lines["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
            status, data = 206, data[start:stop]
        self.send_response(status)
        for name, value in {**lines, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)
