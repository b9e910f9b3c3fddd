"""The description of the admin side in OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.1), made from its operations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from relay import __version__
from relay.web.operation import JSON, Answer, Operation, Parameter, gives
from relay.web.schemas import COMPONENTS, ref

READ = Operation(
    "GET",
    "/openapi.json",
    "openapi",
    "relay",
    "This description.",
    {200: gives("An OpenAPI document.", {"type": "object", "required": ["openapi", "info", "paths", "components"]})},
)

_ABOUT = """\
The admin side of relay. A request that changes something is a POST; where a browser sends it, it must come from one of
relay's own pages (`Origin`, `Sec-Fetch-Site`). Other requests are refused where another site's page makes them, unless
it sends its reader here (`Sec-Fetch-Mode: navigate`). HEAD is answered as GET is, without a body. OPTIONS says which
methods there are; nothing is shared with other origins. A method that a path does not have is a 405, as
`MethodNotAllowed` describes. A parameter that a request does not take is a 400. Where no tokens are configured none is
needed, and the `Host` must be one of relay's own. No answer may be kept by caches."""

_ERRORS: Mapping[int, tuple[str, str, Mapping[str, str]]] = {
    400: ("BadRequest", "The parameter that `detail` names cannot be used, or the request is malformed.", {}),
    401: ("Unauthenticated", "No token, or a wrong one.", {"WWW-Authenticate": "How to give one."}),
    403: ("Forbidden", "The token may only read, and this is a POST; or another site's page sent this.", {}),
    404: ("NotFound", "There is no such thing.", {}),
    405: ("MethodNotAllowed", "The path has other methods.", {"Allow": "Which."}),
    409: ("WrongState", "The state of things does not allow it: `detail` says what to do instead.", {}),
    421: ("MisdirectedRequest", "Without a valid token, the `Host` must be one of relay's own.", {}),
    422: ("InvalidConfig", "The config was refused, and nothing was changed.", {}),
    500: ("InternalError", "A bug: see relay's log.", {}),
    503: ("Unavailable", "The store cannot be asked or written.", {"Retry-After": "Seconds until it makes sense."}),
}


def document(operations: Iterable[Operation]) -> dict[str, Any]:
    """The whole description."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "relay", "version": __version__, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"basic": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "One of `admin.token` and `tokens`."},
                "basic": {"type": "http", "scheme": "basic", "description": "A token as password, any user name."},
            },
            "responses": {
                name: _answer(Answer(text, {JSON: ref("Error")}, headers)) for name, text, headers in _ERRORS.values()
            },
            "schemas": dict(COMPONENTS),
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    answers: dict[str, Any] = {
        str(status): {"$ref": f"#/components/responses/{_ERRORS[status][0]}"} for status in operation.refused_with()
    }
    answers |= {str(status): _answer(answer) for status, answer in operation.answers.items()}
    given = [_parameter(parameter, "path") for parameter in operation.names]
    given += [_parameter(parameter, "query") for parameter in (*operation.filters, *operation.parameters)]
    return {
        "operationId": operation.name,
        "tags": [operation.noun],
        "summary": operation.summary,
        **({"description": operation.description} if operation.description else {}),
        **({"security": []} if operation.open else {}),
        **({"parameters": given} if given else {}),
        "responses": dict(sorted(answers.items())),
    }


def _parameter(parameter: Parameter, where: str) -> dict[str, Any]:
    listed = parameter.schema.get("type") == "array"
    required = where == "path" or parameter.missing is not None
    return {
        "name": parameter.name,
        "in": where,
        "description": parameter.description,
        "required": required,
        **({"style": "form", "explode": False} if listed else {}),
        "schema": parameter.schema,
    }


def _answer(answer: Answer) -> dict[str, Any]:
    headers = {name: {"description": text, "schema": {"type": "string"}} for name, text in answer.headers.items()}
    return {
        "description": answer.description,
        **({"headers": headers} if headers else {}),
        "content": {media: {"schema": schema} for media, schema in answer.content.items()},
    }
