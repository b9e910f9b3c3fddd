"""Coverage-guided fuzzing of the way in: verify, describe, filter, template, through the real ingest handler.

    pip install atheris
    python -m tests.torture.fuzz --seconds 3600 [--corpus FOLDER]

Whatever bytes come, relay answers with one of its own refusals or takes the event; a 5xx or an exception ends the run
with 1, and leaves the input in a file `crash-…`. atheris is no part of the lock: it is not built for every Python.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import itertools
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from tests.torture.row import TOP, Figure, Place, Seen, Skipped

SECONDS = 10  # of the quick run
_DONE = re.compile(r"Done (\d+) runs in (\d+) second")
_COVERED = re.compile(r"cov: (\d+)")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FRAMING = ("Host", "Content-Length", "Transfer-Encoding")  # the parser's business: see smuggling.py
_MISSING = "needs atheris: pip install atheris"
_SECRET = "0123456789abcdef0123456789abcdef"
_PROOFS = {
    "storyblok": f"secret: {_SECRET}",
    "strapi": f"token: {_SECRET}",
    "contentstack": f"basic: {{username: u, password: {_SECRET}}}",
    "prismic": f"secret: {_SECRET}",
    "hygraph": f"secret: {_SECRET}",
    "standard": f"secret: whsec_{_SECRET}",
    "github": f"secret: {_SECRET}",
    "stripe": f"secret: {_SECRET}",
    "generic": f"token: {_SECRET}",
}
_ROUTES = """
routes:
  - {name: all, to: {url: 'http://127.0.0.1:9/'}, retry: none}
  - name: some
    match:
      any: [{action: [publish, "un*"], model: "!draft*"}, {entry_id: "[a-z]*"}]
      where: "length(keys(body)) > `1` || contains(headers.x || '', 'y')"
    to: {url: 'http://127.0.0.1:9/'}
    retry: none
"""
_TEMPLATE = '{{ {"id": event.entry_id, "body": body, "of": event.changes | map(attribute="model") | list} | tojson }}'


def config() -> str:
    """Each type twice: with a proof and without, so that what lies behind the proof is fuzzed too."""
    mapped = "map: {entry_id: body.id, model: 'body.type', event: 'headers.\"x-event\"'}"
    sources = [f"  {kind}: {{type: {kind}, {proof}}}" for kind, proof in _PROOFS.items()]
    sources += [f"  {kind}-open: {{type: {kind}, verify: none, {mapped}}}" for kind in _PROOFS]
    return "sources:\n" + "\n".join(sources) + _ROUTES


class Target:
    """One input at a time, through the handler of a daemon, whose clock stands still: so signed seeds hold."""

    def __init__(self, folder: Path) -> None:
        from relay import daemon, template
        from tests.fakes import ManualClock
        from tests.harness import write_config

        self._folder = folder
        self._clock = ManualClock()
        self._loop = asyncio.new_event_loop()
        self._stack = contextlib.AsyncExitStack()
        path = write_config(folder, "log: {level: error}\n" + config())
        # Held: what is owed is kept and not sent. Rendering comes below.
        running = daemon.running(path, self._clock, held=True)
        self._running = self._loop.run_until_complete(self._stack.enter_async_context(running))
        self._template = template.compiled(_TEMPLATE)
        self._failed = template.TemplateFailed
        self._paths = [f"/in/{kind}{more}" for kind, more in itertools.product(_PROOFS, ("", "-open"))]
        self._statuses = Counter[int]()

    def __call__(self, data: bytes) -> None:
        """A byte for the source, a line for each header, an empty line, the body."""
        self._loop.run_until_complete(self._one(data))
        if self._statuses.total() % 200 == 0:
            (self._folder / "statuses").write_text(json.dumps(self._statuses))

    async def _one(self, data: bytes) -> None:
        from aiohttp import StreamReader
        from aiohttp.base_protocol import BaseProtocol
        from aiohttp.test_utils import make_mocked_request
        from aiohttp.web import BaseRequest
        from multidict import CIMultiDict, CIMultiDictProxy

        path = self._paths[data[0] % len(self._paths)] if data else "/in/generic-open"
        head, _, body = data[1:].partition(b"\n\n")
        headers = CIMultiDict[str]({"Host": "relay.test"})
        for line in head.split(b"\n"):
            name, _, value = line.partition(b":")
            text = name.decode("latin-1").title()
            if _NAME.fullmatch(text) and text not in _FRAMING and b"\0" not in value and b"\r" not in value:
                headers.add(text, value.strip().decode("utf-8", "surrogateescape"))
        payload = StreamReader(BaseProtocol(self._loop), 1 << 16, loop=self._loop)
        payload.feed_data(body)
        payload.feed_eof()
        usual = make_mocked_request("POST", path, payload=payload)
        # A mocked request cannot have the bytes in its headers that a real one can.
        message = usual._message._replace(headers=CIMultiDictProxy(headers))
        request = BaseRequest(message, payload, usual.protocol, usual._payload_writer, usual.task, self._loop)
        response: Any = await self._running.ingest.handle(request)
        self._statuses[response.status] += 1
        assert response.status < 500, f"{response.status} to {data!r}"
        json.loads(response.body)
        if response.status == 200:
            self._render(body)

    def _render(self, body: bytes) -> None:
        from relay import jsontext

        try:
            document = jsontext.parse(body)
        except jsontext.Malformed:
            document = None
        event = {"entry_id": None, "changes": [{"model": None}]}
        with contextlib.suppress(self._failed):
            self._template.render({"event": event, "body": document, "headers": {}, "events": [], "route": "r"})

    def seed(self, corpus: Path) -> None:
        """Each sample, signed, as its sender would send it to either source of its type."""
        from relay import samples

        sources = self._running.reloader.runtime.by_path
        for number, path in enumerate(self._paths):
            kind = path.removeprefix("/in/").removesuffix("-open")
            for name in samples.names(kind):
                signed = sources[path].adapter.sign(samples.fresh(kind, name, self._clock.now()), self._clock.now())
                head = "\n".join(f"{key}:{value}" for key, value in signed.headers.items())
                (corpus / f"{kind}-{number}-{name}").write_bytes(
                    bytes([number]) + head.encode() + b"\n\n" + signed.body
                )


def main() -> int:
    """Parse the arguments, fuzz, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=SECONDS)
    parser.add_argument("--corpus", type=Path, help="kept inputs, to go on with")
    parser.add_argument("--folder", type=Path, help="where its store is, and the tally of what was answered")
    given = parser.parse_args()
    try:
        import atheris
    except ImportError:
        print(_MISSING, file=sys.stderr)
        return 2
    folder = given.folder or Path(tempfile.mkdtemp(prefix="relay-fuzz-"))
    corpus = given.corpus or folder / "corpus"
    corpus.mkdir(exist_ok=True)
    with atheris.instrument_imports(include=["relay", "jmespath"]):
        target = Target(folder)
    target.seed(corpus)
    options = [f"-max_total_time={given.seconds}", "-max_len=20000", "-timeout=10", "-rss_limit_mb=1024"]
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={folder}/", str(corpus)], target)
    atheris.Fuzz()
    return 0


async def guided(place: Place) -> Figure:
    """Some seconds of it; with a count, so many times as many."""
    if importlib.util.find_spec("atheris") is None:
        raise Skipped(_MISSING)
    command = [sys.executable, "-m", "tests.torture.fuzz", "--seconds", str(SECONDS * place.count)]
    process = await asyncio.create_subprocess_exec(
        *(*command, "--folder", str(place.folder)), cwd=TOP, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    out = (await process.communicate())[0].decode(errors="replace")
    (place.folder / "fuzz.out").write_text(out)
    done, covered = _DONE.search(out), _COVERED.findall(out)
    if process.returncode or done is None:
        return Figure(f"exit {process.returncode} (all of it: {place.folder / 'fuzz.out'})", False)
    statuses = json.loads((place.folder / "statuses").read_text())
    told = ", ".join(f"{count:,} x {status}" for status, count in sorted(statuses.items()))
    return Figure(
        f"{int(done[1]):,} inputs in {done[2]} s, {covered[-1]} branches, no 5xx",
        True,
        (Seen("coverage-guided inputs to every type of source", told),),
    )


if __name__ == "__main__":
    sys.exit(main())
