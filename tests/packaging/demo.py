"""Run `relay demo` as a newcomer would, in the folder one stands in, and print the log once something has arrived.

    unshare --map-root-user --net python tests/packaging/alone.py python tests/packaging/demo.py relay demo

The network of its own lets the example config have its ports, 8080, 8081 and 9099, whatever else runs on the machine.
This file is run by itself: it imports nothing of relay.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
import urllib.request
from typing import Any

_LIMIT = 60.0


def main(command: list[str]) -> int:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    items: list[dict[str, Any]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as demo:
        end = time.monotonic() + _LIMIT
        while demo.poll() is None and time.monotonic() < end:
            with contextlib.suppress(OSError), opener.open("http://127.0.0.1:8081/logs?status=delivered") as answer:
                items = json.load(answer)["items"]
                if {item["route"] for item in items} >= {"rebuild-www", "search", "audit"}:
                    break
            time.sleep(0.05)
        demo.send_signal(signal.SIGTERM)
        said, _ = demo.communicate(timeout=_LIMIT)
    print(json.dumps({"code": demo.returncode, "said": said, "items": items}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
