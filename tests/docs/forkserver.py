"""Runs verbs of relay in forks of one process that has imported them: a page with a hundred commands takes seconds.

python -m tests.docs.forkserver SOCKET                  the server
python -IS tests/docs/forkserver.py SOCKET VERB …       a verb, with this process's streams, folder and environment
"""

import json
import os
import signal
import socket
import sys


def serve(path: str) -> None:
    import importlib
    import keyword

    from relay.cli import VERBS
    from relay.cli import relay as cli
    from relay.config import load

    for verb in VERBS:
        importlib.import_module(f"relay.cli.{verb}_" if keyword.iskeyword(verb) else f"relay.cli.{verb}")
    with open("config.example.yaml", "rb") as example:  # finds and compiles all types and presets
        load(example.read(), environ={}, no_secrets=True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
        while True:
            asking, _ = listening.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _answer(asking, cli)
            asking.close()


def _answer(asking: socket.socket, cli: object) -> None:
    """In the fork: be the process that asked, and tell it the exit code."""
    message, streams, _, _ = socket.recv_fds(asking, 1 << 20, 3)
    asked = json.loads(message)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environ"])
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    asking.sendall(b"%d\n" % os.getpid())
    code = 1
    try:
        cli(args=asked["args"], prog_name="relay")  # type: ignore[operator]
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        asking.sendall(b"%d\n" % code)
        os._exit(code)


def ask(path: str, args: list[str]) -> int:
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(path)
        message = json.dumps({"args": args, "folder": os.getcwd(), "environ": dict(os.environ)}).encode()
        socket.send_fds(asking, [message], [0, 1, 2])
        with asking.makefile() as said:
            number = int(said.readline())
            signal.signal(signal.SIGTERM, lambda *_: os.kill(number, signal.SIGTERM))
            return int(said.readline() or 143)  # ended by the signal


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit(ask(sys.argv[1], sys.argv[2:]))
    serve(sys.argv[1])
