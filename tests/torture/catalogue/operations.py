"""O: what operators and machines do to a daemon that runs."""

from __future__ import annotations

from tests.torture import clocks, reloads, shared, soak, unread
from tests.torture.row import Row, by_tests

_PROCESS = "tests/daemon/test_process.py"
_SERVICE = "tests/systemd/test_service.py"

ROWS: tuple[Row, ...] = (
    Row(
        "O1",
        "P5",
        "a storm of reloads",
        "a thousand SIGHUPs in 10 s under 200 events/s, the file changing now and then",
        "0 lost, no answer but 200; the last file runs; memory, tasks and descriptors flat",
        reloads.storm_of_reloads,
    ),
    Row(
        "O2",
        "P5",
        "a config that cannot be taken",
        "invalid, empty, unreadable, a secret missing; reloaded under load",
        "the old one serves; file, line and column in the log and in /health; `check` exits with 78",
        by_tests(
            "tests/test_bad_configs.py",
            "tests/test_config.py",
            f"{_PROCESS}::test_reloads_under_load_valid_and_broken_in_turn_cost_no_answer",
            f"{_PROCESS}::test_a_wrong_config_is_refused_with_78",
        ),
    ),
    Row(
        "O3",
        "P5 P8",
        "YAML that bombs or twists",
        "billion laughs, recursion, repeated keys, old YAML's booleans and octals",
        "refused with its line before it expands",
        by_tests("tests/test_yamlfile.py"),
    ),
    Row(
        "O4",
        "P4",
        "the clock jumps",
        "libfaketime: a day back, a day on, forty days on, while relay runs",
        "retries neither stall nor storm; history is kept",
        clocks.clocks,
        timed=True,
    ),
    Row(
        "O5",
        "P2",
        "relay is stopped",
        "SIGTERM with attempts in flight, and another",
        "they finish; exit 0; nothing is sent twice; who connects is refused; a second one ends it at once",
        by_tests(
            f"{_PROCESS}::test_sigterm_lets_attempts_in_flight_finish_and_exits_0",
            f"{_PROCESS}::test_a_relay_that_stops_refuses_who_connects_and_a_second_sigterm_ends_it_at_once",
        ),
    ),
    Row(
        "O6",
        "P8",
        "relay stands still",
        "under a real systemd: SIGSTOP; a sync that never ends",
        "the watchdog restarts it, within its time and a second where it is stopped; its data survive",
        by_tests(
            f"{_SERVICE}::test_one_that_stands_still_is_ended_by_the_watchdog_and_its_data_survive",
            f"{_SERVICE}::test_one_whose_store_hangs_is_ended_by_the_watchdog_and_says_where_it_hung",
        ),
    ),
    Row(
        "O7",
        "P1",
        "relay is restarted under load",
        "under a real systemd with its socket units: 300 requests over three restarts",
        "0 refused; none waits longer than 2 s, or than a restart and a second where that takes more",
        by_tests("tests/systemd/test_sockets.py::test_nobody_is_refused_in_three_restarts"),
    ),
    Row(
        "O8",
        "P8",
        "nobody reads the log",
        "standard error is a full pipe; standard error is closed",
        "answers take less than twice as long; lost lines are counted",
        unread.logs,
        timed=True,
    ),
    Row(
        "O9",
        "P8",
        "relay runs for a long time",
        "mixed traffic with faults, reloads, pages and pruning",
        "memory, descriptors, tasks and objects flat; SQLite's log bounded",
        soak.soak,
    ),
    Row(
        "O10",
        "P1 P2",
        "relays that share a database are restarted one after another",
        "three relays, one PostgreSQL, under load: SIGTERM and a start, one by one, twice",
        "0 refused by those that are up; 0 lost, 0 sent twice",
        shared.restarted,
    ),
)
