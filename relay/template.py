"""Templates: Jinja2 texts that a config gives, over `event events body headers route`. Imported where one is used."""

from __future__ import annotations

import re
from functools import lru_cache
from types import TracebackType
from typing import Any

from jinja2 import Template as Compiled
from jinja2 import TemplateSyntaxError, UndefinedError
from jinja2.exceptions import SecurityError

from relay.jsontext import whole
from relay.sandbox import Sandbox, work
from relay.work import MOST_TEXT, TooMuch, Work

_FILE = "<template>"
_LONGEST_CAUSE = 200
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")

_sandbox: list[Sandbox] = []


class BadTemplate(ValueError):
    """A text that is no template; the message names the line."""


class TemplateFailed(Exception):
    """A template that came to no result; the message names the line and the cause."""


class Template:
    """A compiled template."""

    __slots__ = ("_compiled",)

    def __init__(self, text: str) -> None:
        if not _sandbox:
            _sandbox.append(Sandbox())
        [sandbox] = _sandbox
        try:
            code = sandbox.compile(sandbox.guard(sandbox.parse(text)), filename=_FILE)
            self._compiled = Compiled.from_code(sandbox, code, sandbox.make_globals(None))
        except TemplateSyntaxError as error:
            raise BadTemplate(_said(error.lineno, error.message or "not a template")) from None
        except (RecursionError, SyntaxError, MemoryError):  # of Python, for what is nested hundreds of levels deep
            raise BadTemplate("the template is nested too deeply") from None

    def render(self, names: dict[str, Any]) -> str:
        """The text that it comes to. Raises TemplateFailed."""
        token = work.set(Work())
        pieces: list[str] = []
        size = 0
        try:
            for piece in self._compiled.root_render_func(self._compiled.new_context(names)):
                size += len(piece)
                if size > MOST_TEXT:
                    raise TooMuch("it renders more than 4 MiB")
                pieces.append(piece)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the template's
            raise TemplateFailed(_said(self._line(error.__traceback__), _cause(error))) from None
        finally:
            work.reset(token)
        return whole("".join(pieces))

    def _line(self, traceback: TracebackType | None) -> int | None:
        """The line of the template that was being rendered."""
        found = None
        while traceback is not None:
            if traceback.tb_frame.f_code.co_filename == _FILE:
                found = self._compiled.get_corresponding_lineno(traceback.tb_lineno)
            traceback = traceback.tb_next
        return found


@lru_cache(maxsize=256)
def compiled(text: str) -> Template:
    """The template of a text. Many routes have the same one, that of a preset. Raises BadTemplate."""
    return Template(text)


def _said(line: int | None, cause: str) -> str:
    text = _CONTROL.sub(" ", cause)
    if len(text) > _LONGEST_CAUSE:
        text = f"{text[: _LONGEST_CAUSE - 1]}…"
    return text if line is None else f"line {line}: {text}"


def _cause(error: Exception) -> str:
    match error:
        case UndefinedError() | SecurityError() | TooMuch():
            return str(error)
        case RecursionError():
            return "it calls itself too often"
        case MemoryError():
            return "it needs too much memory"
        case OverflowError() if "MAX_RANGE" in str(error):
            return "a range is longer than 100,000"
        case _:
            return str(error) or type(error).__name__
