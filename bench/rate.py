"""What `rate` lets through: requests that arrive in each of some seconds, before and after a restart.

    python -m bench.rate [--rate 10/s] [--seconds 10]

A relay process with a backlog and a sink in this process. A burst of one second's worth may come first, and only then:
what could have been sent before a restart is not made up for after it.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

import aiohttp

from tests.harness import relay_process, sink


async def measured(rate: str, seconds: float) -> None:
    """Print how many requests came in each span."""
    config = (
        "sources: {any: {type: generic, verify: none}}\n"
        "routes: [{name: r, to: {url: 'URL'}, rate: RATE, concurrency: 16}]\n"
    ).replace("RATE", rate)
    with tempfile.TemporaryDirectory() as folder:
        async with sink() as destination:
            text = config.replace("URL", destination.url)
            async with relay_process(Path(folder), text) as relay, aiohttp.ClientSession() as session:
                for number in range(1000):
                    async with session.post(f"{relay.public}/in/any", data=b'{"id":%d}' % number) as response:
                        await response.read()
                for word in ("from the first event on", "after kill -9 and a restart"):
                    await destination.wait_count(len(destination.received) + 1)
                    before = len(destination.received) - 1
                    await asyncio.sleep(seconds)
                    count = len(destination.received) - before
                    print(f"{word}: {count} requests in {seconds:g} s, {count / seconds:.1f}/s")
                    relay.kill()
                    await relay.start()


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", default="10/s")
    parser.add_argument("--seconds", type=float, default=10)
    given = parser.parse_args()
    asyncio.run(measured(given.rate, given.seconds))


if __name__ == "__main__":
    main()
