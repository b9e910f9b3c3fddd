"""Saying no on the public side: the answer, and the reason that only the operator sees."""

from __future__ import annotations


class Refusal(Exception):
    """An answer other than yes. `reason` is for the operator; None keeps no record of the request."""

    def __init__(
        self,
        status: int,
        word: str,
        reason: str | None,
        *,
        detail: str | None = None,
        retry_after: float | None = None,
        outcome: str | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.word = word
        self.reason = reason
        self.detail = detail
        """What the sender may know, beside the word."""
        self.retry_after = retry_after
        """Seconds until it makes sense to come back."""
        self.outcome = outcome or word
        """How it is counted."""
        self.close = close
        """Whether the connection ends with it: nobody can say where the next request begins."""
