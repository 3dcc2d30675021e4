"""Applies the migrations of its folder to the cluster, and maps the functions' IAM roles to their database roles.

CloudFormation calls it as a custom resource, when the stack is created, and when the code or the roles have changed. Each request
is answered once, whatever happens: with a failure and its reason, too, and before the function's own time is up; an unanswered
one would hold the stack for an hour. Whoever else invokes it, with `{}`, has the migrations applied, and nothing mapped.

    Create, Update      map `Roles`, apply the migrations, take back the mappings that the resource had before and has no more
    Delete              nothing: the schema, its data and the mappings stay, as the cluster does

https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref.html
"""

from __future__ import annotations

import json
import logging
import threading
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

    from dsql_lambda import RoleMapping

MIGRATIONS = Path(__file__).parent / "migrations"
RESERVE_SECONDS = 10.0
"""Of the invocation: for what is under way to end, and for the answer."""
ALARM_SECONDS = 3.0
"""Before the end of the invocation a request that is still without an answer gets one."""
ANSWER_TRIES, ANSWER_SECONDS = 3, 1.0
LONGEST_REASON = 1500  # bytes; CloudFormation takes 4,096 for the whole answer, and JSON may double some

logger = logging.getLogger()
logger.setLevel(logging.INFO)


def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Do what a request of CloudFormation's asks for, and answer it; without one, apply the migrations."""
    if "RequestType" not in event:
        return {"applied": migrate([], [], seconds_left(context))}
    answer = Answer(event)
    alarm = threading.Timer(
        max(context.get_remaining_time_in_millis() / 1000 - ALARM_SECONDS, 0.0),
        answer.send,
        ("FAILED", "the function's time is up: deploy again, and it goes on where it was; or raise its Timeout"),
    )
    alarm.daemon = True
    alarm.start()
    try:
        applied = handle(event, context)
    except Exception as error:  # every failure is an answer
        logger.exception("the request failed")
        answer.send("FAILED", f"{type(error).__name__}: {error}")
        return {"failed": str(error)}
    finally:
        alarm.cancel()
    answer.send("SUCCESS", Data={"Applied": len(applied)})
    return {"applied": applied}


def handle(event: dict[str, Any], context: LambdaContext) -> list[str]:
    """The names of the migrations that a request has applied."""
    if event["RequestType"] == "Delete":
        logger.info("the schema, its data and the mappings stay")
        return []
    return migrate(mappings(event.get("ResourceProperties")), mappings(event.get("OldResourceProperties")), seconds_left(context))


def migrate(roles: list[RoleMapping], before: list[RoleMapping], seconds: float) -> list[str]:
    """Map the roles, for migrations GRANT to them; apply the migrations; and take back what is mapped no more."""
    from dsql_lambda import apply_migrations, cached_connection, map_roles  # noqa: PLC0415 - a layer that is broken is answered

    map_roles(cached_connection(), roles, say=logger.info)
    applied = apply_migrations(MIGRATIONS, timeout=seconds, say=logger.info)
    map_roles(cached_connection(), [], revoked=[each for each in before if each not in roles], say=logger.info)
    return applied


def mappings(properties: dict[str, Any] | None) -> list[RoleMapping]:
    """The property `Roles` of the resource: a list of a database role, `User`, and an IAM role's `Arn`."""
    from dsql_lambda import RoleMapping  # noqa: PLC0415 - the same

    return [RoleMapping(each["User"], each["Arn"]) for each in (properties or {}).get("Roles", [])]


def seconds_left(context: LambdaContext) -> float:
    """What the work may take."""
    return max(context.get_remaining_time_in_millis() / 1000 - RESERVE_SECONDS, 1.0)


class Answer:
    """The one answer to a request, sent to the URL that came with it."""

    def __init__(self, event: dict[str, Any]) -> None:
        self._event = event
        self._lock = threading.Lock()
        self._is_sent = False

    def send(self, status: str, reason: str = "", **more: Any) -> None:
        """PUT it, unless another one was sent before. What can't be delivered is logged: nobody is there to be told."""
        with self._lock:
            if self._is_sent:
                return
            self._is_sent = True
        body = json.dumps(
            {
                "Status": status,
                "Reason": reason.encode()[:LONGEST_REASON].decode(errors="ignore") or "see the function's log",
                # The same from Create on. Another one would make CloudFormation delete "the old resource".
                "PhysicalResourceId": self._event.get("PhysicalResourceId") or f"{self._event['LogicalResourceId']}-schema",
                **{name: self._event[name] for name in ("StackId", "RequestId", "LogicalResourceId")},
                **more,
            },
            ensure_ascii=False,
        ).encode()
        url = self._event["ResponseURL"]
        if not url.startswith(("https://", "http://")):
            raise ValueError(f"ResponseURL is no URL of HTTP's: {url[:20]}")
        # No content type: the URL is signed without one.
        request = urllib.request.Request(url, data=body, method="PUT", headers={"Content-Type": ""})  # noqa: S310 - checked above
        for attempt in range(1, ANSWER_TRIES + 1):
            try:
                with urllib.request.urlopen(request, timeout=5):  # noqa: S310
                    return
            except OSError as error:
                # Its text, and a traceback, may have the URL, which is a secret.
                logger.warning("the answer was not delivered, attempt %d: %s", attempt, type(error).__name__)
                time.sleep(ANSWER_SECONDS if attempt < ANSWER_TRIES else 0)
