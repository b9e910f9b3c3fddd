"""N: destinations and the network between misbehave, and no other destination notices."""

from __future__ import annotations

from tests.torture import encrypted, farm, lookups, outage, partition
from tests.torture.row import Row, by_tests, together

_FAULTS = "tests/faults/test_hostile_destinations.py"
_NAMES = "tests/faults/test_hostile_names.py"

ROWS: tuple[Row, ...] = (
    Row(
        "N1",
        "P6",
        "a destination hangs, or never answers",
        "a sink that accepts and says nothing",
        "each attempt ends within 10 % of its timeout, with its code; p99 of the others less than 1.2 times",
        farm.hanging,
        timed=True,
    ),
    Row(
        "N2",
        "P6 P8",
        "a destination resets, drips, sends without end, bombs",
        "a sink for each, against a real daemon; its memory is measured",
        "each has its code; less than 16 MiB each; of the answer only `response_body` is kept",
        by_tests(
            f"{_FAULTS}::test_the_real_daemon_says_the_same_and_spends_little_memory_on_each",
            f"{_FAULTS}::test_the_status_decides_and_of_the_body_only_response_body_is_kept",
            f"{_FAULTS}::test_a_failure_is_known_by_its_status_whatever_its_body_does",
            f"{_FAULTS}::test_an_idle_connection_that_answers_without_end_is_closed",
        ),
    ),
    Row(
        "N3",
        "P7",
        "a destination's TLS is not to be trusted",
        "expired, self-signed, of an unknown authority, for another name, TLS 1.1, a stalled handshake, no TLS; tapped",
        "refused each time, each with a reason of its own; nothing is sent in clear",
        together(
            encrypted.refused,
            by_tests(*(f"{_FAULTS}::test_each_fault_has_its_code_and_says_why[{fault}]" for fault in encrypted.FAULTS)),
        ),
    ),
    Row(
        "N4",
        "P7",
        "a destination redirects",
        "301 to 308, loops, to the metadata service",
        "a failure; nobody connects to where it points",
        by_tests(
            f"{_FAULTS}::test_a_redirect_is_a_failure_and_nobody_connects_to_where_it_points",
            "tests/faults/test_denied_addresses.py::test_a_redirect_does_not_lead_to_a_denied_address",
        ),
    ),
    Row(
        "N5",
        "P4",
        "a destination asks to wait",
        "429 and 503 with Retry-After of all kinds",
        "honoured, for a day at most; else the schedule",
        by_tests(
            f"{_FAULTS}::test_retry_after_is_honoured_for_a_day_at_most_and_else_the_schedule",
            f"{_FAULTS}::test_retry_after_on_any_other_answer_is_not_heard",
            "tests/test_retry.py",
        ),
    ),
    Row(
        "N6",
        "P6 P7",
        "names hang, are not found, turn to other addresses",
        "a name server that is silent about 50 names; getaddrinfo that fails, changes its mind, has 1000 addresses",
        "another name is not delayed by 100 ms; nobody connects to a denied address",
        together(lookups.hung, by_tests(_NAMES)),
        timed=True,
    ),
    Row(
        "N7",
        "P2 P6",
        "the network breaks",
        "a network namespace whose firewall drops all, what comes in, or what goes out; and half-open connections",
        "all delivered within the longest backoff and 5 s of its end, under one id each; no socket stuck",
        partition.broken,
        minutes=6,
    ),
    Row(
        "N8",
        "P6",
        "a destination is dead, and comes back",
        "nobody listens on its port for 5 minutes (a 30th of all times in the quick run)",
        "attempts by the schedule and its jitter; unhealthy after 5; then one probe at a time, after 30 s, 60 s, 120 s;"
        " afterwards one at first, one more with each success",
        outage.over,
        timed=True,
    ),
    Row(
        "N9",
        "P6",
        "10 of 100 destinations are ill",
        "processes with a hundred sinks: ten hang, reset, drip or answer 500, and are tried all the time; and one that"
        " takes 20 s for each of a hundred bodies of 1 MB",
        "p99 of the others, from the post to their receipt, less than 1.5 times that with all of them well; less than"
        " twice beside large bodies, which all arrive",
        together(farm.hundred, farm.laden),
        timed=True,
    ),
)
