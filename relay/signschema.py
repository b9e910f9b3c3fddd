"""The entries of a route's `sign`: one section for each scheme, and what they write."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from relay import fields, signing
from relay.fields import HeaderName, HeaderValue, SecretText, SecretTexts, Section, Unresolved, word
from relay.keyed import Algorithm
from relay.payloadschema import Form, Jmespath, Template
from relay.secret import Secret


class SignSection(Section):
    """How relay proves itself to a destination."""

    scheme: str

    @abstractmethod
    def build(self) -> signing.Signer:
        """The signer itself."""


def _keys(check: Callable[[str], bytes]) -> BeforeValidator:
    def checked(value: object) -> object:
        for secret in value if isinstance(value, (list, tuple)) else (value,):
            text = secret.reveal() if isinstance(secret, Secret) else secret
            if isinstance(text, str) and text and not isinstance(text, Unresolved):
                check(text)
        return value

    return BeforeValidator(checked)


class StandardSign(SignSection):
    """Standard Webhooks v1."""

    scheme: Literal["standard"]
    secret: Annotated[SecretTexts, _keys(signing.standard_key)]

    def build(self) -> signing.Signer:
        return signing.StandardSigner([secret.reveal() for secret in self.secret])


class AsymmetricSign(SignSection):
    """Standard Webhooks v1a."""

    scheme: Literal["standard-asymmetric"]
    secret: Annotated[SecretTexts, _keys(signing.asymmetric_key)]

    def build(self) -> signing.Signer:
        return signing.AsymmetricSigner([secret.reveal() for secret in self.secret])


class HygraphSign(SignSection):
    """Hygraph's."""

    scheme: Literal["hygraph"]
    secret: SecretText
    env: HeaderValue | None = None

    def build(self) -> signing.Signer:
        return signing.HygraphSigner(self.secret.reveal(), self.env)


class StoryblokSign(SignSection):
    """Storyblok's."""

    scheme: Literal["storyblok"]
    secret: SecretText

    def build(self) -> signing.Signer:
        return signing.storyblok(self.secret.reveal())


class PrismicSign(SignSection):
    """Prismic's."""

    scheme: Literal["prismic"]
    secret: SecretText

    def build(self) -> signing.Signer:
        return signing.PrismicSigner(self.secret.reveal())


class GithubSign(SignSection):
    """GitHub's."""

    scheme: Literal["github"]
    secret: SecretText

    def build(self) -> signing.Signer:
        return signing.github(self.secret.reveal())


class HmacSign(SignSection):
    """Any header with an HMAC of the body."""

    scheme: Literal["hmac"]
    secret: SecretText
    header: HeaderName
    algorithm: Annotated[Algorithm, word("sha256", "sha1", "sha512")] = "sha256"
    encoding: Annotated[signing.Encoding, word("hex", "base64")] = "hex"
    prefix: HeaderValue = ""

    def build(self) -> signing.Signer:
        return signing.HmacSigner(self.secret.reveal(), self.header, self.algorithm, self.encoding, self.prefix)


SIGNS: dict[str, type[SignSection]] = {
    "standard": StandardSign,
    "standard-asymmetric": AsymmetricSign,
    "hygraph": HygraphSign,
    "storyblok": StoryblokSign,
    "prismic": PrismicSign,
    "github": GithubSign,
    "hmac": HmacSign,
}


def _sign(value: object) -> object:
    if isinstance(value, SignSection):
        return value
    if not isinstance(value, dict):
        raise ValueError("expected a mapping such as {scheme: standard, secret: whsec_…}")
    return fields.chosen(value, "scheme", SIGNS)


Sign = Annotated[SignSection, BeforeValidator(_sign)]


# --- what an entry writes, read from the document itself --------------------------------------------------------------

_HEADERS = {
    "standard": "webhook-signature",
    "standard-asymmetric": "webhook-signature",
    "hygraph": "gcms-signature",
    "storyblok": "webhook-signature",
    "github": "x-hub-signature-256",
}


def header_of(raw: object) -> str | None:
    """The header that an entry writes, in lower case; None where it writes none or does not say."""
    if not isinstance(raw, dict):
        return None
    scheme = raw.get("scheme")
    header = raw.get("header") if scheme == "hmac" else _HEADERS.get(scheme) if isinstance(scheme, str) else None
    return header.lower() if isinstance(header, str) and not isinstance(header, Unresolved) else None


def fills_body(raw: object) -> bool:
    """Whether an entry puts its secret into the body."""
    return isinstance(raw, dict) and raw.get("scheme") == "prismic"


_NO_OBJECTS = frozenset(
    {"multi_select_list", "projection", "filter_projection", "value_projection", "flatten", "comparator"}
    | {"not_expression"}
)


def never_an_object(payload: object, *, batched: bool = False) -> str | None:
    """What a payload is, if it certainly is no JSON object that a secret could be put into."""
    if payload == "empty":
        return "an empty payload"
    if payload in (None, "full") and batched:
        return "a batch of bodies"
    if isinstance(payload, Form):
        return "a form"
    if isinstance(payload, (Template, Jmespath)):
        payload = payload.model_dump()
    if not isinstance(payload, Mapping) or len(payload) != 1:
        return None
    [(kind, text)] = payload.items()
    if not isinstance(text, str) or isinstance(text, Unresolved):
        return None
    if kind == "template" and text.strip() and not text.lstrip().startswith("{"):
        return "a template that does not begin with {"
    if kind == "jmespath" and _type(text) in _NO_OBJECTS:
        return "a jmespath that gives no object"
    return None


def _type(expression: str) -> Any:
    """What the last part of an expression makes."""
    import jmespath
    from jmespath.exceptions import JMESPathError

    try:
        node = jmespath.compile(expression).parsed
    except JMESPathError:
        return None  # said where the payload is checked
    while node["type"] in ("subexpression", "pipe"):
        node = node["children"][-1]
    return node["type"]
