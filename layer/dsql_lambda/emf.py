"""What CloudWatch is told of transactions, in its embedded metric format (EMF): `count`, `TransactionMetrics`.

Knows the metrics' names, units and dimensions, and how Powertools writes them. A dimension of ours never goes into the user's own
`Metrics`, whose records would all have it: what has one is a record of its own, by `single_metric`, in the namespace and with the
service and the default dimensions of the user's. Raises what Powertools raises; whoever calls swallows it.

    OccConflict             a conflict, by `occ_type`
    OccRetryExhausted       conflicts until no attempt or no time was left
    CommitOutcomeUnknown    a COMMIT that was sent and not answered
    TransactionAttempts     how many attempts a transaction took       only into a `Metrics` that was given
    TransactionDuration     milliseconds, however it ended             only into a `Metrics` that was given
    ConnectionOpened        a connection opened, by `reason`           only where a `Metrics` was given

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
https://docs.aws.amazon.com/powertools/python/latest/core/metrics/
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol

from .observation import Attempt, Observation


class Metrics(Protocol):
    """Powertools' `Metrics`, or its EMF provider: what writes into CloudWatch's logs."""

    @property
    def namespace(self) -> Any:
        """The namespace of its metrics; None if none is set."""

    def add_metric(self, name: str, unit: str, value: float) -> None:
        """Add one value to the record that is written when the handler has returned."""

    def add_dimension(self, name: str, value: str) -> None:
        """Add a dimension to that record. Never called here."""


def refuse_others(metrics: object) -> None:
    """Raise `TypeError` for what is no `Metrics`. (Powertools' for Datadog have tags in the place of units and dimensions.)"""
    if not (hasattr(metrics, "add_metric") and hasattr(metrics, "add_dimension")):
        raise TypeError(f"metrics is a {type(metrics).__name__}: it must be Powertools' Metrics (CloudWatch's EMF), or None")


def count(metrics: Metrics | None, name: str, **dimensions: str) -> bool:
    """Count one event. Returns False, and does nothing, where there is no namespace to count in."""
    if is_disabled():
        return True
    namespace = metrics.namespace if metrics is not None else os.environ.get("POWERTOOLS_METRICS_NAMESPACE")
    if not namespace:
        return False
    if metrics is not None and not dimensions:
        metrics.add_metric(name=name, unit="Count", value=1)
    else:
        _write(metrics, namespace, name, dimensions)
    return True


def _write(metrics: Metrics | None, namespace: str, name: str, dimensions: dict[str, str]) -> None:
    """Write a record of one metric."""
    from aws_lambda_powertools.metrics import MetricUnit, single_metric  # noqa: PLC0415 - loaded when there is something to count

    of_user = dict(getattr(metrics, "default_dimensions", None) or {})
    service = getattr(metrics, "service", None)
    if service:
        of_user["service"] = service
    with single_metric(
        name=name, unit=MetricUnit.Count, value=1, namespace=namespace, default_dimensions={**of_user, **dimensions}
    ):
        pass


def is_disabled() -> bool:
    """Are metrics turned off, as `Metrics` reads it when it writes? `single_metric` does not look."""
    said = os.environ.get("POWERTOOLS_METRICS_DISABLED", os.environ.get("POWERTOOLS_DEV", ""))
    return said.lower() in {"1", "on", "t", "true", "y", "yes"}


_said: list[bool] = []  # at most one: that there is no namespace is said once a process


def is_first_time() -> bool:
    """Has nobody been told yet that there is no namespace?"""
    is_first = not _said
    _said[:] = [True]
    return is_first


class TransactionMetrics:
    """What a given `Metrics` is told of one transaction."""

    def __init__(self, metrics: Metrics, no_namespace: Callable[[], None]) -> None:
        self._metrics = metrics
        self._no_namespace = no_namespace

    def begin(self, seen: Observation) -> None:
        """Nothing yet."""

    def begin_attempt(self, attempt: Attempt) -> None:
        """Nothing yet."""

    def end_attempt(self, attempt: Attempt) -> None:
        """Count the connection that was opened for it."""
        if attempt.opened_for:
            count(self._metrics, "ConnectionOpened", reason=attempt.opened_for)

    def end(self, seen: Observation) -> None:
        """How many attempts, and how long. A record without a namespace would fail the handler at its end: none is begun."""
        if is_disabled():
            return
        if not self._metrics.namespace:
            self._no_namespace()
            return
        self._metrics.add_metric(name="TransactionAttempts", unit="Count", value=seen.attempts)
        self._metrics.add_metric(name="TransactionDuration", unit="Milliseconds", value=round(seen.elapsed * 1000, 3))
