"""D: what was acknowledged is on disk, whatever happens to the process, the disk and the file."""

from __future__ import annotations

from tests.torture import backlog, copies, crashes, disks, lanes, second, shared, starve, sweep, upgrade
from tests.torture.row import Row, by_tests, together

CONTRACT = "tests/contract/test_store"
"""Tests of all stores: the beginning of their files' names."""


def in_store(*names: str) -> tuple[str, ...]:
    """Tests of the store on SQLite."""
    return tuple(f"tests/test_sqlite_store.py::test_{name}" for name in names)


ROWS: tuple[Row, ...] = (
    Row(
        "D1",
        "P1",
        "the process crashes",
        "kill -9 at a random moment under load, again and again",
        "0 lost; repeats no more than the attempts in flight, with the same id",
        crashes.kill,
    ),
    Row(
        "D2",
        "P1",
        "the power goes",
        "ext4 on a loop device, FS_IOC_SHUTDOWN at a random moment under load, mounted again",
        "0 lost; repeats no more than the attempts in flight, with the same id",
        crashes.power,
    ),
    Row("D3", "P1", "negative control of D2", "the same under libeatmydata", "it loses", crashes.control),
    Row(
        "D4",
        "P1",
        "the process crashes at each system call",
        "strace kills relay at the nth pwrite and the nth fdatasync: accepting, migrating, backing up, pruning",
        "0 lost, the file sound, at every point",
        sweep.crash_points,
    ),
    Row(
        "D5",
        "P1",
        "an answer comes too soon",
        "strace notes each read, sync and answer of a thousand requests",
        "between a request and its 200 the log is synced, each time",
        by_tests("tests/faults/test_sync_before_answer.py"),
    ),
    Row(
        "D6",
        "P1",
        "the disk gives errors",
        "strace makes fdatasync, then pwrite, fail with EIO ninety times",
        "no 2xx for what is not stored; /health says so within 2 s; well again by itself",
        disks.io_errors,
    ),
    Row(
        "D7",
        "P1 P8",
        "the disk is full",
        "a tmpfs of 64 MiB is filled by events of 100 kB, then made larger",
        "503 with Retry-After before it is full; 0 lost; well within 10 s of room, without a restart; a line a minute"
        " for each cause",
        disks.full,
    ),
    Row(
        "D8",
        "P8",
        "the disk is slow",
        "strace delays each fdatasync by 200 ms",
        "the event loop is never held up; one sync serves many events",
        disks.slow,
        timed=True,
    ),
    Row(
        "D9",
        "P1",
        "the disk dies, or the file is read-only",
        "FS_IOC_SHUTDOWN under load; chattr +i",
        "503 and the reason in /health; exit 78 at a start; the file is never made anew; 0 lost when it is back",
        disks.dead,
    ),
    Row(
        "D10",
        "P1",
        "the file is replaced, removed, cut short, garbage, foreign or newer",
        "mv, rm, other files in its place, live and at a start",
        "noticed live within 5 s, and at a start with exit 78 and one line; never written over",
        by_tests(
            *in_store("a_file_replaced_under_us_takes_nothing_more", "a_replaced_file_is_noticed_without_a_write"),
            *in_store(
                "a_file_that_cannot_be_used_is_refused_and_left_alone", "only_a_file_with_nothing_in_it_is_made_anew"
            ),
            "tests/daemon/test_process.py::test_a_foreign_file_is_refused_with_78_and_left_as_it_was",
        ),
    ),
    Row(
        "D11",
        "P1",
        "bytes of a stored body rot",
        "other bytes are written into the file",
        "it is never sent: failed, `corrupt_body`, and counted as such",
        by_tests(
            "tests/daemon/test_delivery.py::test_a_corrupted_body_is_never_sent",
            *in_store("a_body_that_rotted_is_never_handed_out_as_intact"),
            f"{CONTRACT}.py::test_a_body_that_rotted_is_never_handed_out_as_intact",
            f"{CONTRACT}.py::test_a_body_that_is_gone_is_not_handed_out_as_intact",
            f"{CONTRACT}_windows.py::test_a_body_that_rotted_spoils_the_whole_window_it_is_sent_with",
        ),
    ),
    Row(
        "D12",
        "P1",
        "two daemons on one file",
        "the second is started while the first runs under load; the first is killed",
        "the second says within 2 s that it waits, names the first and ends with 1 after the 10 s it waits, the first"
        " unharmed; kill -9 frees the lock",
        together(
            second.refused,
            by_tests(
                *in_store(
                    "a_second_relay_is_told_who_has_the_file", "a_waiting_relay_takes_over_when_the_other_leaves"
                ),
                *in_store("a_killed_relay_leaves_no_lock_behind", "two_stores_in_one_process_exclude_each_other"),
            ),
        ),
    ),
    Row(
        "D13",
        "P8",
        "readers keep the log from being checkpointed",
        "pages of the log are read all the time under load; then another program keeps a transaction open",
        "the -wal file within one checkpoint and a second of writing; within 64 MiB when the stranger has left; 0 lost",
        starve.read,
        timed=True,
    ),
    Row(
        "D14",
        "P6 P8",
        "very many deliveries wait",
        "a store filled with 200,000 (with --count 5 a million) for ten destinations that hang",
        "ready within 2 s (on a busy machine: half a second of the processor later); under 150 MiB; a claim under 5 ms,"
        " by its index; p99 of another route at most twice that without; worked off from one at a time on, never more"
        " than `concurrency` at once",
        backlog.million,
        timed=True,
    ),
    Row(
        "D15",
        "P1",
        "upgrade and downgrade",
        "stores that relays of every released schema wrote; strace kills the upgrade at each sync and between",
        "all rows and bodies as before; a copy is made first; a newer store is refused and left as it was",
        together(
            upgrade.stepped,
            by_tests(
                "tests/test_released_schemas.py",
                *in_store(
                    "a_file_that_cannot_be_used_is_refused_and_left_alone",
                    "a_migration_that_fails_changes_nothing",
                ),
            ),
        ),
    ),
    Row(
        "D16",
        "P1",
        "backups under load, and one is restored",
        "`relay db backup` again and again under load; relay is started on the last copy",
        "each sound, with all that was acknowledged before it began; restored, it waits for a person, then sends all",
        copies.copied,
    ),
    Row(
        "D18",
        "P1 P2",
        "relays that share a database die, or stand still",
        "three relays, one PostgreSQL, under load: kill -9, SIGSTOP for less and more than a lease, at random; the"
        " database crashes twice",
        "0 lost; nothing sent twice but what was under way at a kill or stop of who sent it; what a dead one had in"
        " hand is sent within 3 s after somebody could know of it; results of who was taken for dead are refused",
        shared.killed_and_stopped,
        minutes=6.0,
    ),
    Row(
        "D19",
        "P2 P3",
        "the same, and order must hold",
        "the same kills and stops, the clock of one relay 20 ms ahead; each entry is published to any of the three, one"
        " event after another",
        "`order: entry` never goes back, `order: latest` sends nothing older after something newer, windows tell of"
        " each event once",
        lanes.in_order,
        minutes=6.0,
    ),
    Row(
        "D20",
        "P1",
        "the database that relays share is away, or fails over",
        "PostgreSQL is stopped in the midst of it for longer than a lease, under load; its primary is, and a"
        " synchronous replica promoted (a URL with both)",
        "503 and 'failing' from all meanwhile; 200 from all within 5 s of its return, without a restart; 0 lost, 0 sent"
        " twice",
        together(shared.database_lost, shared.failed_over),
    ),
)
