"""What one config file comes to when it is built: sources, routes, limits. Immutable, swapped as a whole at reload."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from datetime import datetime, timedelta
from hashlib import blake2b

from relay.auth import Tokens
from relay.authschema import OAuth2
from relay.config import Loaded
from relay.destination import Destination, Exchanging, Limits, Wire, at_once
from relay.effective import is_secret_header
from relay.immutable import immutable
from relay.lane import Order
from relay.problems import ConfigError, Path, Problem, path_text
from relay.routing import Route, Routing
from relay.schema import Config, Tls, UnixAddress
from relay.schema import Route as RouteSection
from relay.secret import MASK, Redactor
from relay.source import Source, SourceConfig, types
from relay.stores import lacking
from relay.tls import Contexts, Unusable
from relay.web.auth import OPERATE, Gate, Token
from relay.web.peer import TrustedProxies


@immutable
class Runtime:
    """All that a request or an attempt needs of the config, looked up and never searched."""

    config: Config
    warnings: tuple[str, ...]
    generation: int
    sha256: str
    loaded_at: datetime
    sources: Mapping[str, Source]
    by_path: Mapping[str, Source]
    routing: Routing
    redact: Redactor
    trusted_proxies: TrustedProxies
    gate: Gate
    tls: ssl.SSLContext | None
    contexts: Contexts
    tokens: Tokens


def build(loaded: Loaded, generation: int, now: datetime, before: Runtime | None = None) -> Runtime:
    """Compile a checked config. Raises ConfigError for what only building can find: certificates, a driver that is not
    installed.

    From the Runtime `before` come TLS contexts whose files have not changed, so that connections stay open, and
    tokens.
    """
    config = loaded.config
    if (needed := lacking(config.store.url)) is not None:
        raise ConfigError([Problem(loaded.file, *loaded.place(("store", "url")), "store.url", needed)])
    redact = Redactor(loaded.secrets, before.redact if before is not None else None, loaded.words)
    contexts = Contexts(before.contexts if before is not None else None)
    tokens = Tokens(before.tokens if before is not None else None)
    wires = _wires(loaded, contexts, redact)
    routes = [_route(section, config, redact, each, tokens) for section, each in zip(config.routes, wires, strict=True)]
    contexts.settle()
    tokens.settle()
    sources = {name: _source(name, section, redact.sparing) for name, section in config.sources.items()}
    return Runtime(
        config=config,
        warnings=tuple(str(warning) for warning in loaded.warnings),
        generation=generation,
        sha256=loaded.sha256,
        loaded_at=now,
        sources=sources,
        by_path={source.path: source for source in sources.values()},
        routing=Routing(routes),
        redact=redact,
        trusted_proxies=TrustedProxies(
            networks=tuple(proxy for proxy in config.server.trusted_proxies if not isinstance(proxy, str)),
            unix="unix" in config.server.trusted_proxies,
        ),
        gate=_gate(config),
        tls=_tls(config.server.tls, loaded) if config.server.tls is not None else None,
        contexts=contexts,
        tokens=tokens,
    )


def _source(name: str, section: SourceConfig, redact: Redactor) -> Source:
    module = types()[section.type]
    return Source(name, section, module.Adapter(section), module.__name__.rpartition(".")[2], redact)


_Wires = tuple[Wire, Wire]
"""How to connect to a destination, and to who gives tokens for it."""


def _wires(loaded: Loaded, contexts: Contexts, redact: Redactor) -> list[_Wires]:
    """How each route connects. Raises ConfigError with every file that cannot be used."""
    wires = []
    problems: dict[Problem, None] = {}
    for place, section in enumerate(loaded.config.routes):
        try:
            to = section.to
            urls = (to.url, to.auth.token_url if isinstance(to.auth, OAuth2) else to.url)
            direct, tokens = (Wire(contexts.needed(to.tls, url), to.proxy) for url in urls)
            wires.append((direct, tokens))
        except Unusable as error:
            own: Path = ("routes", place, "to", "tls")
            path = loaded.marks.existing(
                (*(own if loaded.marks.existing(own) == own else ("defaults", "tls")), error.key)
            )
            problems[Problem(loaded.file, *loaded.place(path), path_text(path), redact(str(error)))] = None
    if problems:
        raise ConfigError(list(problems))
    return wires


def _route(section: RouteSection, config: Config, redact: Redactor, wires: _Wires, tokens: Tokens) -> Route:
    grouping = section.grouping()
    return Route(
        name=section.name,
        sources=section.selected(config.sources),
        filter=section.filter(),
        destination=_destination(section, config, redact, wires, tokens),
        retry=section.retry.build(),
        max_age=section.max_age,
        concurrency=section.concurrency,
        enabled=section.enabled,
        order=Order(section.order),
        grouping=grouping,
        delay=section.delay if grouping is None else timedelta(),
        rate=section.rate,
        max_pending=section.max_pending,
        unhealthy_after=section.unhealthy_after,
        disable_after=section.disable_after,
        any_answer=section.retry.any_answer,
        notify=section.notify,
        fingerprint=_fingerprint(section, config),
    )


def _fingerprint(section: RouteSection, config: Config) -> str:
    """Of what makes a destination another one. Two bytes show nearly every change, and nothing of the secrets."""
    to = section.to
    headers = {name.lower(): value for name, value in (*config.defaults.headers.items(), *to.headers.items())}
    what: list[object] = [
        to.method,
        str(to.request_url),
        *to.requests().items(),
        sorted(item for item in headers.items() if is_secret_header(item[0])),
    ]
    if isinstance(to.auth, OAuth2):
        auth = to.auth
        what += [str(auth.token_url), auth.client_id, auth.client_secret.reveal(), auth.scope]
        what += [sorted(auth.params.items()), sorted(auth.query.items())]
    elif to.auth is not None:
        what.append(to.auth.header)
    return blake2b(repr(what).encode(), digest_size=2).hexdigest()


def _destination(section: RouteSection, config: Config, redact: Redactor, wires: _Wires, tokens: Tokens) -> Destination:
    to = section.to
    wire, of_tokens = wires
    authorization: str | None = None
    exchange: Exchanging = at_once
    if isinstance(to.auth, OAuth2):
        authorization, exchange = MASK, tokens.of(to.auth, of_tokens).exchange
    elif to.auth is not None:
        authorization = to.auth.header
    signers = section.signers()
    url = to.request_url
    own = {name.lower() for name in to.headers}
    return Destination(
        url=url,
        shown_url=redact(to.shown_url),
        method=to.method,
        headers=to.headers,
        default_headers={name: value for name, value in config.defaults.headers.items() if name.lower() not in own},
        pass_headers=to.pass_headers,
        authorization=authorization,
        payload=section.content(),
        signers=signers,
        limits=Limits(to.timeout.total_seconds(), to.connect_timeout.total_seconds(), config.store.response_body),
        success=to.success.codes,
        give_up_on=section.retry.give_up_on,
        redact=redact,
        wire=wire,
        exchange=exchange,
        aim=to.aim(),
        show=to.show,
        tested=to.tested,
        long=section.apart,
    )


def _gate(config: Config) -> Gate:
    admin = config.admin
    tokens = [Token(name, given.token, given.scope) for name, given in admin.tokens.items()]
    if admin.token is not None:
        tokens.append(Token("admin", admin.token, OPERATE))
    hosts = {host.lower() for host in admin.hosts}
    if not isinstance(admin.listen, UnixAddress) and admin.listen.host is not None:
        hosts.add(admin.listen.host.lower())
    return Gate(tuple(tokens), frozenset(hosts))


def _tls(section: Tls, loaded: Loaded) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_certificates(context, section, loaded)
    return context


def load_certificates(context: ssl.SSLContext, section: Tls, loaded: Loaded) -> None:
    """Read the certificate and its key: new connections get them. Raises ConfigError, and then nothing has changed."""
    try:
        context.load_cert_chain(section.cert, section.key)
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "reason", None) or str(error)
        hide = Redactor(loaded.secrets)
        what = hide(f"the certificate {section.cert} and its key {section.key} cannot be loaded: {reason}")
        line, col = loaded.place(("server", "tls"))
        raise ConfigError([Problem(loaded.file, line, col, "server.tls", what)]) from None
