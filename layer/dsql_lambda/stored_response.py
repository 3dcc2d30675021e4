"""The response of a resolver's route as JSON, and back: what an idempotency key remembers of it.

Knows Powertools' responses, and imports them: it is imported by the middleware alone.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any

from aws_lambda_powertools.event_handler.api_gateway import BedrockResponse, Response
from aws_lambda_powertools.shared.cookies import Cookie

_OF_BEDROCK = ("session_attributes", "prompt_session_attributes", "knowledge_bases_configuration")


def stored(response: Any, body: Any) -> dict[str, Any]:
    """A response as JSON has it. `body` is what the resolver writes for it: text, bytes or None."""
    found = {"status_code": int(response.status_code), "content_type": response.content_type}
    found |= {"bytes": b64encode(body).decode()} if isinstance(body, bytes) else {"body": body}
    if isinstance(response, BedrockResponse):
        return {**found, "of_bedrock": {name: getattr(response, name) for name in _OF_BEDROCK}}
    return {
        **found,
        "headers": response.headers,
        "cookies": [str(each) for each in response.cookies],
        "compress": response.compress,
        "base64_encoded": response.base64_encoded,
    }


def restored(found: dict[str, Any]) -> Any:
    """The response of what was stored. A cookie's attributes are those of its text."""
    said = {name: found[name] for name in ("status_code", "content_type")}
    said["body"] = b64decode(found["bytes"]) if "bytes" in found else found["body"]
    if "of_bedrock" in found:
        return BedrockResponse(**said, **found["of_bedrock"])
    cookies = [_cookie(each) for each in found["cookies"]]
    response: Response[Any] = Response(**said, headers=found["headers"], cookies=cookies, compress=found["compress"])
    response.base64_encoded = found["base64_encoded"]
    return response


def _cookie(text: str) -> Cookie:
    pair, *attributes = text.split("; ")
    name, _, value = pair.partition("=")
    return Cookie(name, value, secure=False, custom_attributes=attributes)
