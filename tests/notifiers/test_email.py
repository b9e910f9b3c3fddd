"""Mail, as a real server gets it."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from pydantic import ValidationError

from relay.egress import Egress
from relay.fields import Unresolved
from relay.notifier import Kind, Means, Message, NotSent
from relay.notifiers import email
from relay.resolver import Resolver
from relay.secret import Redactor
from tests.fakes import NOON, ManualClock, ScriptedTransport
from tests.notifiers.post_office import PASSWORD, USER, certified, post_office, speaking_first

WITH = f"{USER}:{quote(PASSWORD, safe='')}@"
SAID = Message(
    Kind.UNHEALTHY, "www", "Route www is unhealthy", "It fails: HTTP 503.\nSee: relay logs --route www", NOON
)


def config(smtp: str, **given: Any) -> email.Keys:
    keys = {"type": "email", "smtp": smtp, "from": "Relay <relay@example.com>", "to": ["ops@example.com"]}
    return email.Config.model_validate(keys | given)


def notifier(smtp: str, *, deny: Any = (), **given: Any) -> email.Email:
    patience = {key: given.pop(key) for key in ("connect", "whole") if key in given}
    means = Means(ScriptedTransport(), ManualClock(), Egress.of(deny), Redactor())
    return email.Email(config(smtp, **given), means, **patience)


@pytest.fixture
def trust(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    return lambda path: monkeypatch.setenv("SSL_CERT_FILE", str(path))


async def test_a_message_arrives_as_plain_mail() -> None:
    async with post_office() as office:
        await notifier(f"smtp://127.0.0.1:{office.port}", to=["ops@example.com", "Bob <bob@example.com>"]).send(SAID)
    [mail] = office.mails
    assert office.recipients == [["ops@example.com", "bob@example.com"]]
    assert mail["From"] == "Relay <relay@example.com>"
    assert mail["To"] == "ops@example.com, Bob <bob@example.com>"
    assert mail["Subject"] == "[relay] Route www is unhealthy"
    assert mail["Date"].datetime == datetime(2026, 11, 23, 12, tzinfo=UTC)
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Message-ID"].endswith("@example.com>")
    assert mail.get_content_type() == "text/plain"
    assert mail.get_content().splitlines() == SAID.text.splitlines()
    assert office.greetings == ["[127.0.0.1]"]


async def test_another_try_is_the_same_mail_and_another_message_another() -> None:
    async with post_office() as office:
        sender = notifier(f"smtp://127.0.0.1:{office.port}")
        for said in (SAID, SAID, replace(SAID, text="More.")):
            await sender.send(said)
    first, again, other = (mail["Message-ID"] for mail in office.mails)
    assert first == again != other


@pytest.mark.parametrize("breaks", ["\r\n", "\n", "\r", "\x00", "\x0b", "\x1c", "\x85", "\u2028", "\u2029", "\x7f"])
async def test_no_text_makes_a_header_or_an_end_of_mail(breaks: str) -> None:
    evil = f"a{breaks}Bcc: eve@example.com{breaks}{breaks}body"
    text = f"one{breaks}.{breaks}QUIT\n.\n..\nFrom here\n" + "long " * 500
    async with post_office() as office:
        await notifier(f"smtp://127.0.0.1:{office.port}").send(replace(SAID, subject=evil, title=evil, text=text))
    [mail] = office.mails
    assert office.recipients == [["ops@example.com"]]
    assert mail["Bcc"] is None
    assert set(mail.keys()) == {
        "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "Content-Type", "Content-Transfer-Encoding",
        "MIME-Version",
    }  # fmt: skip
    assert mail["Subject"].split() == ["[relay]", "a", "Bcc:", "eve@example.com", "body"]
    assert mail.get_content().splitlines()[-4:-1] == [".", "..", "From here"]


async def test_what_is_not_ascii_arrives() -> None:
    said = replace(SAID, title="Größe „日本“ 🌊", text="Es geht nicht: 日本 🌊\nÜber")
    async with post_office() as office:
        await notifier(f"smtp://127.0.0.1:{office.port}", **{"from": "Müller <relay@example.com>"}).send(said)
    [mail] = office.mails
    assert mail["Subject"] == "[relay] Größe „日本“ 🌊"
    assert mail["From"].addresses[0].display_name == "Müller"
    assert mail.get_content().splitlines() == ["Es geht nicht: 日本 🌊", "Über"]


# -- TLS and names -----------------------------------------------------------------------------------------------------


async def test_tls_from_the_start_is_verified(tmp_path: Path, trust: Callable[[Path], None]) -> None:
    context, certificate = certified(tmp_path)
    async with post_office(tls=context) as office:
        url = f"smtps://127.0.0.1:{office.port}"
        with pytest.raises(NotSent) as raised:
            await notifier(url).send(SAID)
        assert raised.value.reason == "the certificate is self-signed (add it to what this machine trusts)"
        trust(certificate)
        await notifier(url).send(SAID)
    assert office.encrypted == [True]


async def test_a_certificate_for_another_name_is_refused(tmp_path: Path, trust: Callable[[Path], None]) -> None:
    context, certificate = certified(tmp_path, "mail.example.com")
    trust(certificate)
    async with post_office(tls=context) as office:
        with pytest.raises(NotSent) as raised:
            await notifier(f"smtps://127.0.0.1:{office.port}").send(SAID)
    assert raised.value.reason == "the certificate is for other names: mail.example.com; not for 127.0.0.1"
    assert office.mails == []


async def test_starttls_always_means_it(tmp_path: Path, trust: Callable[[Path], None]) -> None:
    context, certificate = certified(tmp_path)
    async with post_office(starttls=context) as office, post_office() as plain:
        url = f"smtp://127.0.0.1:{office.port}"
        with pytest.raises(NotSent, match="self-signed"):
            await notifier(url, starttls="always").send(SAID)
        with pytest.raises(NotSent, match="offers no STARTTLS"):
            await notifier(f"smtp://127.0.0.1:{plain.port}", starttls="always").send(SAID)
        trust(certificate)
        await notifier(url, starttls="always").send(SAID)
    assert office.encrypted == [True]
    assert plain.mails == []


async def test_starttls_auto_asks_nothing_of_a_server_on_this_machine(tmp_path: Path) -> None:
    context, _ = certified(tmp_path)
    async with post_office(starttls=context) as office:
        await notifier(f"smtp://127.0.0.1:{office.port}").send(SAID)
        await notifier(f"smtp://localhost:{office.port}", starttls="never").send(SAID)
    assert office.encrypted == [False, False]


async def test_starttls_auto_is_taken_from_others_and_never_done_without_for_a_password(
    tmp_path: Path, trust: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(email, "_here", lambda address: False)
    context, certificate = certified(tmp_path)
    async with post_office(starttls=context) as office, post_office(auth=True) as stripped:
        with pytest.raises(NotSent, match="self-signed"):
            await notifier(f"smtp://127.0.0.1:{office.port}").send(SAID)
        trust(certificate)
        await notifier(f"smtp://127.0.0.1:{office.port}").send(SAID)
        await notifier(f"smtp://127.0.0.1:{stripped.port}").send(SAID)
        with pytest.raises(NotSent, match="do not go to it in the clear"):
            await notifier(f"smtp://{WITH}127.0.0.1:{stripped.port}").send(SAID)
    assert office.encrypted == [True]
    assert (stripped.encrypted, stripped.users) == ([False], [None])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"])
async def test_the_egress_rule_holds_for_the_address_behind_a_name(host: str) -> None:
    async with post_office() as office:
        with pytest.raises(NotSent, match=r"denied by server\.egress \(loopback\)") as raised:
            await notifier(f"smtp://{host}:{office.port}", deny=("loopback",)).send(SAID)
    assert not raised.value.again
    assert office.connections == 0


async def test_an_address_that_takes_no_connection_leaves_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Resolver.resolve

    async def both(self: Resolver, host: str, port: int = 0, family: Any = socket.AF_UNSPEC) -> Any:
        [here] = await real(self, "127.0.0.1", port, family)
        return [{**here, "host": "169.254.169.254"}, {**here, "host": "127.0.0.3"}, here]

    monkeypatch.setattr(Resolver, "resolve", both)
    async with post_office() as office:
        await notifier(f"smtp://mail.example.com:{office.port}", deny=("metadata",)).send(SAID)
    assert len(office.mails) == 1


# -- credentials -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_the_clear", [True, False])
async def test_user_name_and_password_are_sent(
    tmp_path: Path, trust: Callable[[Path], None], in_the_clear: bool
) -> None:
    context, certificate = certified(tmp_path)
    trust(certificate)
    async with post_office(starttls=context, auth=True, auth_in_the_clear=in_the_clear) as office:
        await notifier(f"smtp://{WITH}127.0.0.1:{office.port}").send(SAID)
    assert office.users == [USER]
    assert office.encrypted == [not in_the_clear]


async def test_a_wrong_password_is_no_reason_to_try_again_and_is_not_shown() -> None:
    async with post_office(auth=True) as office:
        with pytest.raises(NotSent, match="refuses user name or password: 535") as raised:
            await notifier(f"smtp://{USER}:another-password@127.0.0.1:{office.port}").send(SAID)
    assert not raised.value.again
    assert "another-password" not in raised.value.reason


async def test_a_password_that_the_server_echoes_is_masked() -> None:
    password = "p@ss:word/#1"
    coded = base64.b64encode(f"\0{USER}\0{password}".encode()).decode()
    answer = f"550 no {password} {quote(password, safe='')} {coded}\x1b[31m"
    async with post_office(auth=True, password=password, refuse=lambda address: answer) as office:
        with pytest.raises(NotSent) as raised:
            await notifier(f"smtp://{USER}:{quote(password, safe='')}@127.0.0.1:{office.port}").send(SAID)
    assert raised.value.reason == "the server refuses ops@example.com (550 no *** *** ***?[31m)"


# -- what goes wrong ---------------------------------------------------------------------------------------------------


async def test_what_a_server_refuses_for_good_is_not_tried_again() -> None:
    async with post_office(refuse=lambda address: "550 5.1.1 unknown") as unknown:
        with pytest.raises(NotSent, match=r"refuses ops@example.com \(550 5.1.1 unknown\)") as raised:
            await notifier(f"smtp://127.0.0.1:{unknown.port}").send(SAID)
        assert not raised.value.again
    async with post_office(refuse=lambda address: "450 greylisted") as later:
        with pytest.raises(NotSent, match="450 greylisted") as raised:
            await notifier(f"smtp://127.0.0.1:{later.port}").send(SAID)
        assert raised.value.again
    async with post_office(data="554 no") as refusing:
        with pytest.raises(NotSent, match="the server refuses: 554 no") as raised:
            await notifier(f"smtp://127.0.0.1:{refusing.port}").send(SAID)
        assert not raised.value.again


async def test_one_recipient_that_is_refused_does_not_keep_it_from_the_others() -> None:
    async with post_office(refuse=lambda address: "550 who?" if address.startswith("bob") else None) as office:
        with pytest.raises(NotSent, match=r"^sent, but the server refuses bob@example.com \(550 who\?\)") as raised:
            await notifier(f"smtp://127.0.0.1:{office.port}", to=["ops@example.com", "bob@example.com"]).send(SAID)
    assert not raised.value.again
    assert office.recipients == [["ops@example.com"]]


async def test_who_is_refused_for_the_moment_alone_gets_it_with_another_try() -> None:
    answers = {"bob": "450 greylisted", "cy": "550 who?"}
    cy = r"the server refuses cy@example.com \(550 who\?\)"
    bob = r"the server refuses bob@example.com \(450 greylisted\)"
    async with post_office(refuse=lambda address: answers.get(address.partition("@")[0])) as office:
        to = ["ops@example.com", "bob@example.com", "cy@example.com"]
        url = f"smtp://127.0.0.1:{office.port}"
        left = SAID
        for _ in range(2):  # at first of three, then of one
            with pytest.raises(NotSent, match=f"^sent, but {cy}; {bob}$") as raised:
                await notifier(url, to=to).send(left)
            assert raised.value.again
            left = raised.value.rest or left
        with pytest.raises(NotSent, match=f"^sent, but {cy}; no connection to .*refused$") as raised:
            await notifier("smtp://127.0.0.1:1", to=to).send(left)
        assert raised.value.again
        del answers["bob"]
        with pytest.raises(NotSent, match=f"^sent, but {cy}$") as raised:
            await notifier(url, to=to).send(left)
        assert not raised.value.again
    assert office.recipients == [["ops@example.com"], ["bob@example.com"]]
    assert [mail["To"] for mail in office.mails] == [", ".join(to)] * 2
    assert office.mails[0]["Message-ID"] == office.mails[1]["Message-ID"]


async def test_after_a_reload_those_are_told_who_are_to_be_told_now_and_have_not_been() -> None:
    async with post_office(refuse=lambda address: "450 wait" if address.startswith("bob") else None) as office:
        url = f"smtp://127.0.0.1:{office.port}"
        with pytest.raises(NotSent) as raised:
            await notifier(url, to=["ops@example.com", "bob@example.com"]).send(SAID)
        assert raised.value.rest is not None
        await notifier(url, to=["ops@example.com", "carol@example.com"]).send(raised.value.rest)
        await notifier(url, to=["ops@example.com"]).send(raised.value.rest)
    assert office.recipients == [["ops@example.com"], ["carol@example.com"]]


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        (b"", "the mail was not taken within 0.3 s"),
        (b"220 hello\r\n", "the mail was not taken within 0.3 s"),
        (b"554 no\r\n", "the server refuses: 554 no"),
        (b"421 busy\r\n", "the server refuses: 421 busy"),
        (b"SSH-2.0-OpenSSH\r\n", "the server refuses: Malformed SMTP response line: SSH-2.0-OpenSSH"),
        (b"x" * 100_000, "the server refuses: Response too long"),
    ],
)
async def test_a_server_that_misbehaves_holds_nothing_up(says: bytes, reason: str) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(says)
        await reader.read()

    async with speaking_first(talk) as port:
        # One that says something is given time for it, on a machine that does much else.
        patience = 0.3 if "0.3 s" in reason else 20
        with pytest.raises(NotSent) as raised:
            await notifier(f"smtp://127.0.0.1:{port}", whole=patience).send(SAID)
    assert raised.value.reason == reason


async def test_a_server_that_is_not_there_is_said() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(NotSent, match=f"no connection to 127\\.0\\.0\\.1:{port}: Connection refused"):
        await notifier(f"smtp://127.0.0.1:{port}").send(SAID)
    with pytest.raises(NotSent, match=r"the name mail\.invalid does not resolve"):
        await notifier("smtp://mail.invalid").send(SAID)


async def test_a_farewell_that_goes_wrong_leaves_it_sent() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n")
        async for line in reader:
            if line == b"DATA\r\n":
                writer.write(b"354 go on\r\n")
            elif line == b".\r\n" or line.split()[:1] in ([b"EHLO"], [b"MAIL"], [b"RCPT"]):
                writer.write(b"250 OK\r\n")

    async with speaking_first(talk) as port:
        await notifier(f"smtp://127.0.0.1:{port}", whole=3).send(SAID)


# -- the config --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "place", "message"),
    [
        ({"smtp": "https://mail"}, "smtp", "expected an SMTP server such as smtp://localhost:25 or smtps://"),
        ({"smtp": "smtp://"}, "smtp", "expected an SMTP server"),
        ({"smtp": "smtp://mail/x"}, "smtp", "an SMTP server's URL has no path, query or fragment"),
        ({"smtp": "smtp://mail?x=1"}, "smtp", "an SMTP server's URL has no path, query or fragment"),
        ({"smtp": "smtp://me@mail"}, "smtp", "expected a user name and a password, or neither"),
        ({"smtp": "smtp://127.1"}, "smtp", "IPv4 address in disguise"),
        ({"from": "relay"}, "from", "expected an address such as ops@example.com"),
        ({"from": "a@b.c, d@e.f"}, "from", "expected an address"),
        ({"from": "a@b.c\nBcc: d"}, "from", "expected an address"),
        ({"to": "Ops <a b@c>"}, "to", "expected an address"),
        (
            {"to": ["a@b.c", 5]},
            "to",
            "expected an address such as ops@example.com or Relay <relay@example.com>, got the",
        ),
        ({"to": []}, "to", "expected at least one value, got an empty list"),
        ({"starttls": "yes"}, "starttls", "expected auto, always or never, got 'yes'"),
        ({"smtp": "smtps://mail", "starttls": "always"}, "starttls", "smtps:// is TLS from the start"),
    ],
)
def test_mistakes_in_the_config_are_said(given: dict[str, Any], place: str, message: str) -> None:
    with pytest.raises(ValidationError) as raised:
        config(**{"smtp": "smtp://mail", **given})
    [line] = raised.value.errors()
    assert line["loc"][0] == place
    assert message in line["msg"]


def test_a_password_is_never_shown() -> None:
    for text in ("smtp://me:geheim-geheim@/", "smtp://me:geheim-geheim@mail/x", "ftp://me:geheim-geheim@mail"):
        with pytest.raises(ValidationError) as raised:
            config(text)
        assert "geheim" not in str(raised.value)


def test_what_was_not_looked_up_is_not_judged() -> None:
    keys = {"smtp": Unresolved("${A}"), "from": Unresolved("${B}"), "to": (Unresolved("${C}"),)}
    email.Config.model_validate({"type": "email", **keys})


def test_an_exposed_password_is_known() -> None:
    assert config(f"smtp://{WITH}mail", starttls="never").exposed == ("starttls", "mail")
    for safe in (config(f"smtp://{WITH}mail"), config(f"smtps://{WITH}mail"), config("smtp://mail", starttls="never")):
        assert safe.exposed is None
