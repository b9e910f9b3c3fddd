"""A real systemd as PID 1, in namespaces of its own, over a throw-away copy of a root filesystem.

    with booted() as machine:                       # this machine's own root, or booted("/srv/trixie")
        machine.write("/etc/systemd/system/x.service", unit)
        machine.run("systemctl", "daemon-reload")
        assert machine.ask("systemctl", "start", "x").returncode == 0

What is written inside lands on a tmpfs and is gone with it; processes, mounts, host name, network (loopback only) and
cgroups are its own. PID 1 is killed by the kernel when the process that booted it dies, and all that it started with
it. Several may run at once.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 60.0  # seconds for what should take one or two, on a machine that does much else

_TOOLS = {"unshare": "util-linux", "nsenter": "util-linux", "setpriv": "util-linux", "pivot_root": "util-linux"}
_NAMESPACES = ("--mount", "--pid", "--ipc", "--uts", "--net", "--cgroup")
_PREFIX = "relay-systemd"
_numbers = itertools.count()

# Beside what is enabled, which the harness removes from a machine's own root: what a namespace has no use for, or
# would do to the machine outside.
_MASKED = (
    "systemd-udevd.service",
    "systemd-udev-trigger.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-modules-load.service",
    "modprobe@.service",
    "systemd-journald-audit.socket",
    "systemd-sysctl.service",
    "systemd-binfmt.service",
    "systemd-random-seed.service",
    "systemd-firstboot.service",
    "systemd-logind.service",
    "systemd-timesyncd.service",
    "systemd-networkd.service",
    "systemd-resolved.service",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-remount-fs.service",
    "proc-sys-fs-binfmt_misc.automount",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "tmp.mount",
    "console-getty.service",
    "container-getty@.service",
    "getty@.service",
    "getty.target",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
)

# $1 the root, $2 a folder to build in. Then it waits for a line on its input: what is to be there before PID 1 starts
# is put there meanwhile. `container` tells systemd that it is in one: no hardware, no modules, no kernel's log.
_BUILD = """
set -eu
root=$1 work=$2
mount -t tmpfs -o mode=0755 tmpfs "$work"
mkdir "$work/upper" "$work/work" "$work/new"
chmod --reference="$root" "$work/upper"
mount -t overlay -o "lowerdir=$root,upperdir=$work/upper,workdir=$work/work" overlay "$work/new"
new=$work/new
mkdir -p "$new/proc" "$new/sys" "$new/dev" "$new/run" "$new/tmp"
mount -t proc -o nosuid,nodev,noexec proc "$new/proc"
# What the kernel has once for all of the machine is not to be changed from here.
mount --bind "$new/proc/sys" "$new/proc/sys"
mount -o remount,bind,ro,nosuid,nodev,noexec "$new/proc/sys"
if [ -e "$new/proc/sysrq-trigger" ]; then
  mount --bind /dev/null "$new/proc/sysrq-trigger"
fi
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$new/sys"
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$new/sys/fs/cgroup"
mount -t tmpfs -o mode=0755,nosuid,nodev tmpfs "$new/run"
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$new/tmp"
mount -t tmpfs -o mode=0755,nosuid tmpfs "$new/dev"
for each in null zero full random urandom tty; do cp -a "/dev/$each" "$new/dev/"; done
mkdir "$new/dev/pts" "$new/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts "$new/dev/pts"
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$new/dev/shm"
ln -s pts/ptmx "$new/dev/ptmx"
ln -s /proc/self/fd "$new/dev/fd"
ln -s /proc/self/fd/0 "$new/dev/stdin"
ln -s /proc/self/fd/1 "$new/dev/stdout"
ln -s /proc/self/fd/2 "$new/dev/stderr"
@mounts@
echo built
read -r go
mkdir -p "$new/.outside"
cd "$new"
pivot_root . .outside
umount -l /.outside
rmdir /.outside
# As at a real boot: without it the mounts of credentials are empty inside the services.
mount --make-rshared /
exec env -i container=lxc PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \\
  /lib/systemd/systemd --unit=multi-user.target --show-status=no <&- >/dev/null 2>&1
"""


class CannotBoot(Exception):
    """The namespace did not come up; the message has what was said."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A booted systemd, seen from outside."""

    pid: int
    """Of its PID 1, outside."""

    def path(self, inside: str | Path) -> Path:
        """A path inside as one that can be opened out here. Absolute symlinks inside lead astray."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def write(self, inside: str | Path, text: str | bytes, mode: int = 0o644) -> None:
        """Write a file as root, making the folders above it."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        path.chmod(mode)

    def read(self, inside: str | Path) -> str:
        return self.path(inside).read_text()

    def command(self, *command: str) -> list[str]:
        """The command that runs a command inside, as root."""
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]
        environ = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return [*enter, "--", "env", "-i", environ, "LC_ALL=C.UTF-8", "HOME=/root", *command]

    def ask(self, *command: str, stdin: str = "", timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        """Run a command inside, whatever its exit code."""
        return subprocess.run(
            self.command(*command), input=stdin, capture_output=True, text=True, timeout=timeout, check=False
        )

    def run(self, *command: str, stdin: str = "", timeout: float = PATIENCE) -> str:
        """Run a command inside that must succeed; its output."""
        done = self.ask(*command, stdin=stdin, timeout=timeout)
        assert done.returncode == 0, f"{shlex.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def journal(self, *options: str) -> str:
        """What journald has, with `journalctl`'s options."""
        return self.run("journalctl", "--no-pager", "--quiet", *options)

    def until(self, condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
        """Ask again and again until something is so."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds:.0f} s: {what}\n{self.journal('--lines=60')}")
            time.sleep(0.05)


def missing(root: str | Path = "/") -> str | None:
    """Why no systemd can be booted over this root, for a test that skips; None where one can."""
    if os.geteuid() != 0:
        return "needs root, for namespaces and mounts"
    for tool, package in _TOOLS.items():
        if shutil.which(tool) is None:
            return f"{tool} is not installed (package {package})"
    if not (Path(root) / "lib/systemd/systemd").exists():
        return f"systemd is not installed in {root} (package systemd)"
    return _refused()


@functools.cache
def _refused() -> str | None:
    """Whether this machine lets root make namespaces, overlays and cgroups: containers often do not."""
    if _hierarchy() is None:
        return "cgroup v2 is not mounted"
    with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}-{os.getpid()}-") as work:
        folder = shlex.quote(work)
        script = (
            f"set -e; mount -t tmpfs tmpfs {folder}; cd {folder}; mkdir upper work new; "
            "mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work overlay new; mount -t proc proc new/proc"
        )
        tried = subprocess.run(
            ["unshare", *_NAMESPACES, "--fork", "--propagation=private", "sh", "-c", script],
            capture_output=True,
            text=True,
            check=False,
        )
    if tried.returncode != 0:
        return f"no namespace with an overlay can be made here: {tried.stderr.strip()}"
    try:
        with _cgroup():
            return None
    except OSError as error:
        return f"no cgroup can be made here: {error}"


@contextlib.contextmanager
def booted(
    root: str | Path = "/",
    *,
    binds: Mapping[str, str | Path] | None = None,
    copies: Mapping[str, str | Path] | None = None,
    before: Callable[[Path], None] | None = None,
    keep_enabled: bool = False,
) -> Iterator[Machine]:
    """Boot systemd over `root` to multi-user.target, and take all of it down at the end.

    `binds`: folders of this machine to be seen inside, read-only, by their path inside. `copies`: the same, but what
    is written there stays inside; a bind may lie in one. `before`: is called with the new root when it is built and
    nothing has started yet. `keep_enabled`: leave /etc/systemd/system as it is in `root`; else it is empty, so that
    nothing that this machine runs is started a second time. Raises CannotBoot.
    """
    with contextlib.ExitStack() as stack:
        cgroup = stack.enter_context(_cgroup())
        work = stack.enter_context(tempfile.TemporaryDirectory(prefix=f"{cgroup.name}-"))
        script = _BUILD.replace("@mounts@", "\n".join(_mounts(binds or {}, copies or {})))
        join = 'echo $$ >"$0"/cgroup.procs && exec "$@"'
        command = ["sh", "-c", join, str(cgroup)]
        # setpriv: killed by the kernel when this process ends, however it ends; unshare sees to its child likewise.
        command += ["setpriv", "--pdeathsig=KILL", "unshare", *_NAMESPACES, "--fork", "--kill-child=KILL"]
        command += ["--propagation=private", "sh", "-c", script, "sh", str(Path(root).resolve()), work]
        process = stack.enter_context(
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        stack.callback(process.kill)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        if process.stdout.readline() != "built\n":
            process.wait(PATIENCE)
            raise CannotBoot(process.stderr.read().strip())
        pid = _child_of(process.pid)
        new = Path(f"/proc/{pid}/root{work}/new")
        _prepare(new, keep_enabled)
        if before is not None:
            before(new)
        process.stdin.write("go\n")
        process.stdin.close()
        machine = Machine(pid)
        _wait_for_boot(machine, process)
        yield machine


def _mounts(binds: Mapping[str, str | Path], copies: Mapping[str, str | Path]) -> Iterator[str]:
    for number, (inside, outside) in enumerate(copies.items()):
        to, upper, scratch = shlex.quote(inside), f"$work/copy{number}", f"$work/scratch{number}"
        options = f'"lowerdir="{shlex.quote(str(outside))}",upperdir={upper},workdir={scratch}"'
        yield f'mkdir -p "$new"{to} "{upper}" "{scratch}"'
        yield f'mount -t overlay -o {options} overlay "$new"{to}'
    for inside, outside in binds.items():
        to = shlex.quote(inside)
        yield f'mkdir -p "$new"{to}'
        yield f'mount --rbind {shlex.quote(str(outside))} "$new"{to}'
        yield f'mount -o remount,bind,ro "$new"{to}'


def _prepare(new: Path, keep_enabled: bool) -> None:
    units = new / "etc/systemd/system"
    if not keep_enabled:
        for entry in units.iterdir() if units.is_dir() else ():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    runtime = new / "run/systemd/system"
    runtime.mkdir(parents=True)
    for name in _MASKED:
        (runtime / name).symlink_to("/dev/null")
    (new / "etc/fstab").write_text("")
    # A journal of its own, in memory, at a known place.
    identity = new / "etc/machine-id"
    identity.unlink(missing_ok=True)
    identity.write_text(os.urandom(16).hex() + "\n")
    drop_in = new / "run/systemd/journald.conf.d/10-harness.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Journal]\nStorage=volatile\nRateLimitBurst=0\nForwardToSyslog=no\nForwardToWall=no\n")


def _wait_for_boot(machine: Machine, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        asked = machine.ask("systemctl", "is-system-running")
        if asked.stdout.strip() in ("running", "degraded"):  # degraded: a unit of the root itself failed
            return
        if process.poll() is not None:
            assert process.stderr is not None
            raise CannotBoot(f"PID 1 ended: {process.stderr.read().strip()}")
        if time.monotonic() > deadline:
            jobs = machine.ask("systemctl", "list-jobs", "--no-pager").stdout
            raise CannotBoot(f"not booted after {PATIENCE:.0f} s: {asked.stdout}{asked.stderr}{jobs}")
        time.sleep(0.05)


def _child_of(parent: int) -> int:
    """The child of a process that has exactly one."""
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            if f"\nPPid:\t{parent}\n" in status.read_text():
                return int(status.parent.name)
    raise CannotBoot(f"process {parent} has no child")


def _hierarchy() -> Path | None:
    """Where cgroup v2 is mounted: alone, or beside v1."""
    for path in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
        if (path / "cgroup.procs").exists() and (path / "cgroup.controllers").exists():
            return path
    return None


@contextlib.contextmanager
def _cgroup() -> Iterator[Path]:
    """A cgroup for PID 1, removed with all below it. Raises OSError where none can be made."""
    hierarchy = _hierarchy()
    assert hierarchy is not None
    _sweep(hierarchy)
    made = hierarchy / f"{_PREFIX}-{os.getpid()}-{next(_numbers)}"
    made.mkdir()
    try:
        yield made
    finally:
        _remove(made)


def _sweep(hierarchy: Path) -> None:
    """Remove the empty folders and cgroups that a killed test left."""
    for stale in (*hierarchy.glob(f"{_PREFIX}-*"), *Path(tempfile.gettempdir()).glob(f"{_PREFIX}-*")):
        owner = stale.name.removeprefix(f"{_PREFIX}-").split("-")[0]
        if not Path("/proc", owner).exists():
            _remove(stale)


def _remove(cgroup: Path) -> None:
    """Remove cgroups once they are empty: the kernel takes a moment to end what was killed in them."""
    deadline = time.monotonic() + 10
    while True:
        try:
            for folder, _, _ in os.walk(cgroup, topdown=False):
                os.rmdir(folder)
            return
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                return  # the next run removes it
            time.sleep(0.02)
