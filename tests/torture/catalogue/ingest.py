"""I: senders misbehave, and every other sender is served."""

from __future__ import annotations

from tests.torture import jsonbombs, large, proxied, slow, smuggling
from tests.torture.fuzz import guided
from tests.torture.row import Row, by_tests, together

_INGEST = "tests/daemon/test_ingest.py::test"

ROWS: tuple[Row, ...] = (
    Row(
        "I1",
        "P8",
        "slow clients",
        "a thousand sockets that say nothing, or drip heads, bodies, chunks; slowhttptest",
        "each is closed within 15 s; meanwhile another sender's p99 is less than twice its own",
        together(slow.clients, slow.slowhttptest),
        timed=True,
    ),
    Row(
        "I2",
        "P8",
        "no file descriptors",
        "prlimit --nofile=64 and 200 connections",
        "others are served and deliveries go out meanwhile; well within 2 s; few lines",
        slow.descriptors,
    ),
    Row(
        "I3",
        "P8",
        "large bodies at once",
        "200 bodies of 1 MiB in a memory cgroup of 128 MiB: texts; JSON that is 25 times as large parsed; each to 20"
        " routes whose destinations answer after a second",
        "200, 413 or 503, never killed; well after; what was taken arrives",
        together(large.texts, large.objects, large.routed),
    ),
    Row(
        "I4",
        "P7",
        "request smuggling",
        "raw bytes, each form on a connection of its own; the same through nginx that keeps one connection to relay",
        "400 and the connection closed, or one event with its whole body, and nobody else's answer",
        together(smuggling.framing, proxied.framing),
    ),
    Row("I5", "P8", "compression bombs", "each kind of body", "413, 415 or 400; less than 16 MiB each", slow.bombs),
    Row(
        "I6",
        "P8",
        "JSON bombs",
        "each document to each type of source, with where, map and template over it",
        "200 or 400, never 5xx; what was taken is stored byte for byte",
        jsonbombs.documents,
    ),
    Row(
        "I7",
        "P8",
        "fuzzing",
        "hypothesis over adapters, patterns, queries, templates, config; atheris through the ingest handler",
        "no 5xx, no crash",
        together(
            by_tests(
                "tests/contract/test_sources.py::test_garbage_is_rejected_or_malformed_or_described",
                "tests/test_jsontext.py",
                "tests/test_bodyproof.py",
                "tests/test_pattern.py",
                "tests/test_query.py",
                "tests/test_yamlfile.py",
                "tests/test_config.py::test_any_document_is_taken_or_refused_with_places",
                "tests/daemon/test_openapi_fuzz.py",
            ),
            guided,
        ),
    ),
)
