"""An HTTP server on the loopback that serves the shipped files well or badly."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

__all__ = ["Server", "serving"]

SHIPPED = Path(__file__).parent.parent / "mnist_lit" / "datasets" / "mnist"


class Handler(BaseHTTPRequestHandler):
    """Serve `/<how>/<file>`."""

    server: "Server"

    def do_GET(self) -> None:
        """Answer as the first part of the path asks for."""
        _, how, name = self.path.split("/")
        self.server.requests.append((how, name, self.headers.get("Authorization")))
        content = (SHIPPED / name).read_bytes()
        if how.isdecimal():
            return self.send_error(int(how))
        if how == "private" and not self.headers.get("Authorization"):
            return self.send_error(401)
        if how in {"redirect", "circle"}:
            self.send_response(302)
            self.send_header("Location", f"/{'well' if how == 'redirect' else how}/{name}")
            return self.end_headers()
        if how == "page":
            content = b"<!doctype html><title>Welcome to the hotel's network</title>"
        if how == "flipped":
            content = content[:-100] + bytes([content[-100] ^ 1]) + content[-99:]
        self.send_response(200)
        if how != "unsized":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if how in {"short", "stalled", "slow"}:
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            if how != "short":
                self.server.wait()
            if how != "slow":
                return None
            content = content[len(content) // 2 :]
        self.wfile.write(content)
        return None

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Remembers what was asked for, as (how, file, authorization)."""

    daemon_threads = True

    def __init__(self, delay: float) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str, str | None]] = []
        self.delay = delay

    def wait(self) -> None:
        """Keep a client waiting."""
        time.sleep(self.delay)

    def url(self, how: str, user: str = "") -> str:
        """Return the address of a mirror that serves files in this way."""
        return f"http://{user}127.0.0.1:{self.server_port}/{how}"


@contextmanager
def serving(delay: float = 2) -> Iterator[Server]:
    """Serve until the end of the block; a stalled or slow answer waits `delay` seconds in its middle."""
    with Server(delay) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
