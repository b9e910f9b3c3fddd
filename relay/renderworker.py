"""The helper of `relay.rendering`: renders one payload after another, until nobody asks any more.

It has no handler for SIGPROF, so that the kernel ends it when a rendering has used up its processor time, wherever in
the interpreter it is.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
from typing import Any

from relay import jsontext, query, rendering, template
from relay.work import TooMuch, Work


def main() -> None:
    """Answer on standard output what is asked on standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's: its end ends this
    asked, answers = sys.stdin.buffer, sys.stdout.buffer
    _be_first_to_go()
    _bound_memory()
    while select.select([asked], [], [], rendering.IDLE_SECONDS)[0]:
        head = asked.read(rendering.HEAD.size)
        if len(head) < rendering.HEAD.size:
            return
        job, body = (asked.read(size) for size in rendering.HEAD.unpack(head))
        signal.setitimer(signal.ITIMER_PROF, rendering.PROCESSOR_SECONDS)
        done, answer = _answer(job, body)
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(rendering.HEAD.pack(done, len(answer)) + answer)
        answers.flush()


def _answer(job: bytes, body: bytes) -> tuple[bool, bytes]:
    try:
        return True, _rendered(json.loads(job), body)
    except (template.TemplateFailed, query.QueryError, TooMuch, jsontext.Malformed) as error:
        return False, str(error).encode("utf-8", "replace")
    except MemoryError:
        return False, b"it needs too much memory"
    except RecursionError:
        return False, b"it is nested too deeply"


def _rendered(job: dict[str, Any], body: bytes) -> bytes:
    try:
        document = jsontext.parse(body)
    except jsontext.Malformed:
        document = None
    names = {**job["names"], "body": document}
    if job["kind"] == "template":
        return template.compiled(job["text"]).render(names).encode()
    result = query.compile(job["text"]).search(names)
    Work().weigh(result)
    return jsontext.dumps(result)


def _be_first_to_go() -> None:
    """Where memory runs out, the kernel is to end this, not relay: all else goes on."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("1000")  # to raise it needs no right
    except OSError:
        return  # not Linux


def _bound_memory() -> None:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            size = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return  # not Linux: the processor time is bound all the same
    resource.setrlimit(resource.RLIMIT_AS, (size + rendering.MEMORY,) * 2)


if __name__ == "__main__":
    main()
