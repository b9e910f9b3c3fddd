"""`python -m relay`, and the `relay` command."""

from __future__ import annotations


def main() -> None:
    """Run the command line; exits with 0 done, 1 failed, 2 wrong usage, 78 an operator must act."""
    from relay.cli import relay

    relay(prog_name="relay")


if __name__ == "__main__":
    main()
