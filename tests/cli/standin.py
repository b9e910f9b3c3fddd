"""A server in the place of relay's admin side: answers as a test says, on a real socket, and keeps what was asked."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Answer = Callable[[dict[str, str], BaseHTTPRequestHandler], Any]


@dataclass
class StandIn:
    """What is answered, by method and path, and what was asked."""

    answers: dict[str, Answer]
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""


@contextlib.contextmanager
def standing_in(answers: dict[str, Answer], port: int = 0) -> Iterator[StandIn]:
    """`answers` gives JSON for `GET /path`, or a status and JSON, or None where it has answered by itself."""
    made = StandIn(answers)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            parts = urlsplit(self.path)
            query = dict(parse_qsl(parts.query))
            name = f"{self.command} {parts.path}"
            made.asked.append((name, query))
            found = made.answers.get(name)
            answer = found(query, self) if found else (404, {"error": "not_found", "detail": "not there"})
            if answer is None:
                self.close_connection = True
                return
            status, content = answer if isinstance(answer, tuple) else (200, answer)
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = _answer  # noqa: N815 - as the base class looks for them

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # who hangs up is what some tests are about

    server = Server(("127.0.0.1", port), Handler)
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def log_item(id_text: str, **said: Any) -> dict[str, Any]:
    """An item of `/logs`."""
    return {
        "id": id_text, "event_id": "evt_01M85CA5GE9CERZWDHANEQSGCC", "route": "www", "source": "blog", "type": "strapi",
        "event": "entry.publish", "model": "article", "stage": None, "action": "publish", "entry_id": "42",
        "status": "delivered", "attempts": 1, "code": 200, "error": None, "merged_into": None,
        "created_at": "2026-11-23T20:00:00.000Z", "updated_at": "2026-11-23T20:00:00.100Z", "next_attempt_at": None,
        "duration_ms": 12,
    } | said  # fmt: skip
