"""Which bucket, and as whom. Imports no driver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from asyncelt.errors import ConfigError

__all__ = ["S3Config", "s3_config"]

_KEYS = (
    "aws_access_key_id",
    "aws_secret_access_key",
    "aws_session_token",
    "profile_name",
    "region_name",
    "endpoint_url",
    "s3_url_style",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Config:
    """A prefix in a bucket."""

    bucket: str
    prefix: str = ""
    """Without a slash at either end."""
    endpoint_url: str | None = None
    region_name: str | None = None
    profile_name: str | None = None
    path_style: bool = False
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    ttl_s: float = 15.0
    """After this time without a sign of life an owner counts as gone."""
    part_bytes: int = 8 * 1024 * 1024
    """Files up to this size go in one request; of larger ones, parts of this size."""
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 60.0
    """Longest silence of the service within a request."""
    attempts: int = 4
    """Times that a request is made before its failure counts."""
    slots: int = 4
    """Requests with data at once; so many parts are in memory at most."""

    @property
    def wants_digests(self) -> bool:
        """Whether data files go with a digest of our own. To AWS the driver adds a checksum while it sends."""
        return self.endpoint_url is not None

    @property
    def location(self) -> str:
        """The address, without secrets."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


def s3_config(url: str, endpoint_url: str | None, region_name: str | None, credentials: object) -> S3Config:
    """Check an address and its credentials; does no I/O.

    Raises:
        ConfigError: One of them cannot be used; the message never has a secret in it.
    """
    parts = urlsplit(url)

    if not parts.netloc:
        raise ConfigError(f"filesystem({url!r}): there is no bucket in this address; it looks like s3://bucket/prefix.")

    if parts.username or parts.password or "@" in parts.netloc:
        raise ConfigError("filesystem(): credentials do not belong into the address; pass them as credentials={...}.")

    given = _credentials(credentials)
    endpoint = endpoint_url or given.get("endpoint_url")

    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise ConfigError(f"filesystem(endpoint_url={endpoint!r}): it begins with https:// or http://.")

    return S3Config(
        bucket=parts.netloc,
        prefix=parts.path.strip("/"),
        endpoint_url=endpoint,
        region_name=region_name or given.get("region_name"),
        profile_name=given.get("profile_name"),
        path_style=given.get("s3_url_style", "path" if endpoint else "vhost") == "path",
        access_key_id=given.get("aws_access_key_id"),
        secret_access_key=given.get("aws_secret_access_key"),
        session_token=given.get("aws_session_token"),
    )


def _credentials(credentials: object) -> Mapping[str, str]:
    if credentials is None:
        return {}

    if not isinstance(credentials, Mapping):
        raise ConfigError(
            f"filesystem(credentials=...) takes a mapping with the keys {', '.join(_KEYS)}, not "
            f"{type(credentials).__name__}."
        )

    unknown = [str(key) for key in credentials if key not in _KEYS]

    if unknown:
        raise ConfigError(f"filesystem credentials have unknown keys: {', '.join(unknown)}. Known: {', '.join(_KEYS)}.")

    given = {str(key): str(value) for key, value in credentials.items() if value is not None}
    half = {"aws_access_key_id", "aws_secret_access_key"} - given.keys()

    if len(half) == 1:
        raise ConfigError(f"filesystem credentials have one half of a key only: {half.pop()} is missing.")

    return given
