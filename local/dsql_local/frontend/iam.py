"""The cluster's identity and its IAM: endpoint, credentials, principals, and who may connect. No I/O; the clock is given."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from . import access_token

__all__ = ["ACCOUNT", "DEFAULT_PRINCIPAL", "ClusterIdentity"]

ACCOUNT = "123456789012"
DEFAULT_PRINCIPAL = f"arn:aws:iam::{ACCOUNT}:role/local"


@dataclass(slots=True)
class ClusterIdentity:
    """A cluster, its known credentials (access keys and secret keys), and the ARNs of their principals."""

    cluster: str
    region: str
    credentials: Mapping[str, str]
    clock: Callable[[], float]
    principals: Mapping[str, str] = field(default_factory=dict)
    expired_at: float | None = None  # tokens signed up to this moment are refused
    refused_once: set[tuple[str, str]] = field(default_factory=set)

    @property
    def endpoint(self) -> str:
        """The cluster's host name."""
        return f"{self.cluster}.dsql.{self.region}.on.aws"

    @property
    def _accepted_keys(self) -> str:
        """The part of an error message that says which access key to use."""
        default = self.credentials.get("defaultkey") == "defaultsecret"
        names = ", ".join(self.credentials) or "no access key"
        use = "set AWS_ACCESS_KEY_ID=defaultkey and AWS_SECRET_ACCESS_KEY=defaultsecret" if default else "set one of these"
        return f"The local DSQL accepts {names}: {use}, and unset AWS_SESSION_TOKEN and AWS_PROFILE."

    def principal(self, key: str) -> str:
        """The ARN of the owner of an access key."""
        other = DEFAULT_PRINCIPAL if key == "defaultkey" else f"arn:aws:iam::{ACCOUNT}:role/{key}"
        return self.principals.get(key) or other

    def check(self, text: str, user: str) -> str:
        """The ARN of a token's signer. Raises `access_token.InvalidToken` unless it allows `user` to connect now."""
        token = access_token.read(text)
        access_token.verify(
            token,
            user=user,
            endpoint=self.endpoint,
            region=self.region,
            credentials=self.credentials,
            now=self.clock(),
            accepted_keys=self._accepted_keys,
        )
        key = token["X-Amz-Credential"].partition("/")[0]
        if self.expired_at is not None and self._is_expired(token, (key, user), self.expired_at):
            raise access_token.expired(token, self.expired_at)
        return self.principal(key)

    def token(self, user: str) -> str:
        """A token for this user, signed now with the first credentials."""
        key, secret = next(iter(self.credentials.items()))
        return access_token.sign(user=user, endpoint=self.endpoint, region=self.region, key=key, secret=secret, now=self.clock())

    def expire(self) -> None:
        """Refuse every token signed so far as expired."""
        self.expired_at = self.clock()
        self.refused_once.clear()

    def _is_expired(self, token: access_token.Token, caller: tuple[str, str], until: float) -> bool:
        # A token's date has whole seconds, and two tokens of one second are identical. So a token signed in the second of
        # `expire` is refused once for each caller, and accepted after that: signing again at once succeeds.
        signed, limit = token.signed_at.timestamp(), int(until)
        if signed > limit or (signed == limit and caller in self.refused_once):
            return False
        self.refused_once.add(caller)
        return True
