"""The catalogue: every fault and attack that relay is tried with, in order."""

from __future__ import annotations

from tests.torture import crashes, disks, sweep
from tests.torture.row import Row, by_tests

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
        "503 with Retry-After before it is full; 0 lost; well within 10 s of room, without a restart or many lines",
        disks.full,
    ),
    Row(
        "D8",
        "P8",
        "the disk is slow",
        "strace delays each fdatasync by 200 ms",
        "the event loop is never held up; one sync serves many events",
        disks.slow,
    ),
    Row(
        "D9",
        "P1",
        "the disk dies, or the file is read-only",
        "FS_IOC_SHUTDOWN under load; chattr +i",
        "503 and the reason in /health; exit 78 at a start; the file is never made anew; 0 lost when it is back",
        disks.dead,
    ),
)
