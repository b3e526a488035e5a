"""A local HTTP server that serves the data files, correctly or with a fault."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

__all__ = ["Server", "serving"]

SHIPPED = Path(__file__).parent.parent.parent / "mnist_lit" / "datasets" / "mnist"


class Handler(BaseHTTPRequestHandler):
    """Serve `/<mode>/<file>`."""

    server: "Server"

    def do_GET(self) -> None:
        """Respond as the mode says."""
        _, mode, name = self.path.split("/")
        self.server.requests.append((mode, name, self.headers.get("Authorization")))
        content = (SHIPPED / name).read_bytes()
        if mode.isdecimal():
            return self.send_error(int(mode))
        if mode == "private" and not self.headers.get("Authorization"):
            return self.send_error(401)
        if mode in {"redirect", "loop"}:
            self.send_response(302)
            self.send_header("Location", f"/{'ok' if mode == 'redirect' else mode}/{name}")
            return self.end_headers()
        if mode == "page":
            content = b"<!doctype html><title>Log in to the network</title>"
        if mode == "corrupt":
            content = content[:-100] + bytes([content[-100] ^ 1]) + content[-99:]
        self.send_response(200)
        if mode != "no_length":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if mode in {"truncated", "stalled", "slow"}:
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            if mode != "truncated":
                time.sleep(self.server.delay)
            if mode != "slow":
                return None
            content = content[len(content) // 2 :]
        self.wfile.write(content)
        return None

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class Server(ThreadingHTTPServer):
    """Records its requests as (mode, file, authorization)."""

    daemon_threads = True

    def __init__(self, delay: float) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str, str | None]] = []
        self.delay = delay

    def url(self, mode: str, user: str = "") -> str:
        """Return the URL of a mirror that serves files in this mode."""
        return f"http://{user}127.0.0.1:{self.server_port}/{mode}"


@contextmanager
def serving(delay: float = 2) -> Iterator[Server]:
    """Run a server within a context; the modes stalled and slow wait `delay` seconds in the middle of a file."""
    with Server(delay) as server:
        thread = Thread(target=server.serve_forever, args=[0.01], daemon=True)  # seconds until it sees `shutdown`
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
