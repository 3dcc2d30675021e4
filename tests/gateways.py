"""The events that AWS sends to each of Powertools' resolvers, and what a caller gets of their answers.

As the pages of the services have them, with what a resolver reads.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from aws_lambda_powertools.event_handler import (
    ALBResolver,
    APIGatewayHttpResolver,
    ApiGatewayResolver,
    APIGatewayRestResolver,
    BedrockAgentResolver,
    LambdaFunctionUrlResolver,
    VPCLatticeResolver,
    VPCLatticeV2Resolver,
)

JSON = {"content-type": "application/json", "host": "abc.execute-api.us-east-1.amazonaws.com"}


def _rest(method: str, path: str, body: str | None) -> dict[str, Any]:
    return {
        "resource": "/{proxy+}",
        "path": path,
        "httpMethod": method,
        "headers": JSON,
        "multiValueHeaders": {name: [value] for name, value in JSON.items()},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "pathParameters": {"proxy": path.removeprefix("/")},
        "stageVariables": None,
        "requestContext": {"httpMethod": method, "path": f"/prod{path}", "stage": "prod", "requestId": "r-1"},
        "body": body,
        "isBase64Encoded": False,
    }


def _http(method: str, path: str, body: str | None) -> dict[str, Any]:
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "",
        "headers": JSON,
        "requestContext": {"http": {"method": method, "path": path}, "stage": "$default", "requestId": "r-1"},
        "body": body,
        "isBase64Encoded": False,
    }


def _alb(method: str, path: str, body: str | None) -> dict[str, Any]:
    return {
        "requestContext": {"elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/t/1"}},
        "httpMethod": method,
        "path": path,
        "queryStringParameters": {},
        "headers": JSON,
        "body": body or "",
        "isBase64Encoded": False,
    }


def _lattice(method: str, path: str, body: str | None) -> dict[str, Any]:
    return {
        "raw_path": path,
        "method": method,
        "headers": JSON,
        "query_string_parameters": {},
        "body": body or "",
        "is_base64_encoded": False,
    }


def _lattice_v2(method: str, path: str, body: str | None) -> dict[str, Any]:
    # Its headers are lists. Powertools 3.37 wants text of a content type, and takes a body without one for JSON.
    return {
        "version": "2.0",
        "path": path,
        "method": method,
        "headers": {"host": [JSON["host"]]},
        "queryStringParameters": {},
        "body": body or "",
        "isBase64Encoded": False,
        "requestContext": {"serviceNetworkArn": "arn:aws:vpc-lattice:us-east-1:123456789012:servicenetwork/sn-1"},
    }


def _agent(method: str, path: str, body: str | None) -> dict[str, Any]:
    properties = [{"name": name, "type": "integer", "value": str(each)} for name, each in json.loads(body or "{}").items()]
    return {
        "messageVersion": "1.0",
        "agent": {"name": "a", "id": "1", "alias": "x", "version": "1"},
        "inputText": "",
        "sessionId": "s-1",
        "actionGroup": "orders",
        "apiPath": path,
        "httpMethod": method,
        "parameters": [],
        "requestBody": {"content": {"application/json": {"properties": properties}}},
        "sessionAttributes": {},
        "promptSessionAttributes": {},
    }


class Gateway(NamedTuple):
    """What stands before a function: its resolver, and the event that it makes of a request."""

    resolver: type[ApiGatewayResolver]
    event: Callable[[str, str, str | None], dict[str, Any]]

    def request(self, app: Any, context: Any, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """The status and the JSON that a caller gets of a resolver."""
        answer = app.resolve(self.event(method, path, json.dumps(body) if body is not None else None), context)
        return answered(answer)


def answered(answer: dict[str, Any]) -> tuple[int, Any]:
    """The status and the JSON of a resolver's answer."""
    if "response" in answer:
        said = answer["response"]
        return int(said["httpStatusCode"]), json.loads(said["responseBody"]["application/json"]["body"])
    return int(answer["statusCode"]), json.loads(answer["body"])


GATEWAYS = {
    "rest": Gateway(APIGatewayRestResolver, _rest),
    "http": Gateway(APIGatewayHttpResolver, _http),
    "url": Gateway(LambdaFunctionUrlResolver, _http),
    "alb": Gateway(ALBResolver, _alb),
    "lattice": Gateway(VPCLatticeResolver, _lattice),
    "lattice-v2": Gateway(VPCLatticeV2Resolver, _lattice_v2),
    "bedrock": Gateway(BedrockAgentResolver, _agent),
}
