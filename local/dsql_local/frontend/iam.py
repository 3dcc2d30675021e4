"""Who a cluster is, whom it lets in, and what time it is there. No I/O; the clock is given."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from . import access_token

__all__ = ["ACCOUNT", "DEFAULT_PRINCIPAL", "ClusterIdentity"]

ACCOUNT = "123456789012"
DEFAULT_PRINCIPAL = f"arn:aws:iam::{ACCOUNT}:role/local"


@dataclass(slots=True)
class ClusterIdentity:
    """Who this cluster is, whom it lets in, and what time it is."""

    cluster: str
    region: str
    credentials: Mapping[str, str]
    clock: Callable[[], float]
    principals: Mapping[str, str] = field(default_factory=dict)
    expired_until: float | None = None
    turned_away: set[tuple[str, str]] = field(default_factory=set)

    @property
    def endpoint(self) -> str:
        """The host name."""
        return f"{self.cluster}.dsql.{self.region}.on.aws"

    @property
    def known_keys(self) -> str:
        """The sentence that says which access key to use."""
        default = self.credentials.get("defaultkey") == "defaultsecret"
        names = ", ".join(self.credentials) or "no access key"
        use = "set AWS_ACCESS_KEY_ID=defaultkey and AWS_SECRET_ACCESS_KEY=defaultsecret" if default else "set one of these"
        return f"The local DSQL knows {names}: {use}, and unset AWS_SESSION_TOKEN and AWS_PROFILE."

    def principal(self, key: str) -> str:
        """The ARN of the IAM role or user that an access key belongs to."""
        other = DEFAULT_PRINCIPAL if key == "defaultkey" else f"arn:aws:iam::{ACCOUNT}:role/{key}"
        return self.principals.get(key) or other

    def check(self, text: str, user: str) -> str:
        """The ARN of whoever signed this token. Raises `access_token.Refused` unless it lets `user` in now."""
        token = access_token.read(text)
        access_token.verify(
            token,
            user=user,
            endpoint=self.endpoint,
            region=self.region,
            credentials=self.credentials,
            now=self.clock(),
            known=self.known_keys,
        )
        key = token["X-Amz-Credential"].partition("/")[0]
        if self.expired_until is not None and self._declared_expired(token, (key, user), self.expired_until):
            raise access_token.expired(token, self.expired_until)
        return self.principal(key)

    def token(self, user: str) -> str:
        """A token for this user, signed now with the first credentials."""
        key, secret = next(iter(self.credentials.items()))
        return access_token.sign(user=user, endpoint=self.endpoint, region=self.region, key=key, secret=secret, now=self.clock())

    def expire(self) -> None:
        """Declare every token signed up to now expired."""
        self.expired_until = self.clock()
        self.turned_away.clear()

    def _declared_expired(self, token: access_token.Token, caller: tuple[str, str], until: float) -> bool:
        # A token's date has whole seconds, and two tokens of one second are equal byte for byte. So one signed in the very
        # second of `expire` is refused unless its caller was turned away before: whoever signs again at once gets in.
        signed, limit = token.signed_at.timestamp(), int(until)
        if signed > limit or (signed == limit and caller in self.turned_away):
            return False
        self.turned_away.add(caller)
        return True
