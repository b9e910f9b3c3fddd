"""The catalogue: every fault and attack that relay is tried with, in order."""

from __future__ import annotations

from tests.torture import crashes
from tests.torture.row import Row

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
)
