"""A tenth source type is one file and its samples: config, daemon, `send` and `sources` find them by their names."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.harness import RelayProcess, sink, write_config

MODULE = '''
"""Acme: a shared word in a header."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from multidict import CIMultiDict

from relay import proof, proofschema
from relay.delivery import Mark
from relay.event import Change, Description, Inbound
from relay.fields import SecretTexts
from relay.source import Proof, SourceConfig

SAMPLE = "gadget.shipped"


class Config(SourceConfig):
    type: Literal["acme"]
    word: SecretTexts | None = None

    def proofs(self) -> tuple[str, ...]:
        return ("word",) if self.word is not None else ()


class Adapter:
    proof_headers = proofschema.ALWAYS_MASKED | {"x-acme-word"}
    body_proofs: tuple[tuple[str, ...], ...] = ()
    retries = True
    never: frozenset[str] = frozenset()
    own_actions = False

    def __init__(self, config: Config) -> None:
        words = config.word or ()
        self._checks = [proof.StaticHeader("X-Acme-Word", words)]

    def verify(self, inbound: Inbound, now: datetime) -> Proof:
        return proof.verify(self._checks, inbound, now)

    def describe(self, inbound: Inbound) -> Description:
        body = inbound.object()
        return Description(str(body.get("what")), (Change("gadget", None, "update", str(body.get("id"))),))

    def mark(self, inbound: Inbound, description: Description) -> Mark | None:
        return None

    def sign(self, inbound: Inbound, now: datetime) -> Inbound:
        return proof.sign(self._checks, inbound, now)
'''


async def test_a_tenth_source_type_is_one_file_and_its_samples(tmp_path: Path) -> None:
    package = tmp_path / "tree" / "relay"
    shutil.copytree(Path(__file__).parents[2] / "relay", package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "sources" / "acme.py").write_text(MODULE)
    samples = package / "sources" / "samples" / "acme"
    samples.mkdir()
    sample = {"headers": [["Content-Type", "application/json"]], "body": '{"what":"gadget.shipped","id":7}'}
    (samples / "gadget.shipped.json").write_text(json.dumps(sample))
    environ = {**os.environ, "PYTHONPATH": str(package.parent)}

    def relay(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "relay", *words]
        return subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, check=False)

    listed = relay("sources", "--json")
    assert "acme" in {entry["type"] for entry in json.loads(listed.stdout)}, listed.stderr
    async with sink() as destination:
        text = "sources: {shop: {type: acme, word: a-word-of-sixteen-letters}}\n"
        text += f"routes: [{{name: r, match: {{model: gadget}}, to: {{url: {destination.url}}}}}]\n"
        process = RelayProcess(write_config(tmp_path, text), environ={"PYTHONPATH": str(package.parent)})
        await process.start()
        try:
            sent = await asyncio.to_thread(relay, "send", "shop", "--to", f"{process.public}/in/shop")
            assert sent.returncode == 0, sent.stderr
            [request] = await destination.wait_count(1)
            assert request.body.decode() == sample["body"]
        finally:
            process.kill()
