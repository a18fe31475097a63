"""What went wrong with a request, in one line that says what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import aiohttp
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError as NotConnected,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)

from asyncelt.destinations.filesystem_impl.s3.config import S3Config
from asyncelt.errors import AsynceltError, ConfigError, DestinationRejected, DestinationUnavailable

__all__ = ["CONFLICTS", "FAILURES", "code_of", "translated"]

FAILURES = (ClientError, BotoCoreError, aiohttp.ClientError, OSError, TimeoutError)
"""What the driver raises."""
CONFLICTS = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
"""A conditional request came too late."""
_AGAIN = frozenset(
    {"SlowDown", "InternalError", "RequestTimeout", "ServiceUnavailable", "Throttling", "OperationAborted"}
)
_CREDENTIALS = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"})
_REGION = frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"})
_SERVER_ERROR = 500


def code_of(error: BaseException) -> str:
    """The service's own code; empty when the error does not come from it."""
    if not isinstance(error, ClientError):
        return ""

    return str(cast("Mapping[str, Mapping[str, object]]", error.response).get("Error", {}).get("Code", ""))


def translated(error: BaseException, config: S3Config, doing: str) -> AsynceltError:
    """The error that the engine understands."""
    where = f"{config.location}" + (f" at {config.endpoint_url}" if config.endpoint_url else "")

    if isinstance(error, ProfileNotFound):
        return ConfigError(f"{where}: {error}. Correct profile_name, or the file of AWS profiles.")

    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return ConfigError(
            f"{where}: {error}. Pass credentials={{'aws_access_key_id': ..., 'aws_secret_access_key': ...}}, set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile."
        )

    if isinstance(error, ClientError):
        return _refused(error, config, where, doing)

    if isinstance(error, BotoCoreError) and not isinstance(error, HTTPClientError | NotConnected):
        return DestinationRejected(f"{where}: {doing} failed: {error}", code=type(error).__name__)

    said = str(error) or type(error).__name__

    return DestinationUnavailable(f"{where}: {doing} failed: {said}. Is the server reachable?")


def _refused(error: ClientError, config: S3Config, where: str, doing: str) -> AsynceltError:
    code = code_of(error)
    answer = cast("Mapping[str, Mapping[str, object]]", error.response)
    status = cast("int", answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    said = str(answer.get("Error", {}).get("Message") or code)

    if status >= _SERVER_ERROR or code in _AGAIN:
        return DestinationUnavailable(f"{where}: {doing} failed: {code}: {said}")

    if code == "NoSuchBucket":
        advice = f"Create the bucket {config.bucket!r}, or correct the address or the endpoint_url."
    elif code in _CREDENTIALS:
        advice = "Correct the credentials: access key, secret key, and session token if there is one."
    elif code in _REGION:
        advice = f"The bucket is in another region than {config.region_name!r}: pass its region_name."
    elif status == 403:
        advice = "These credentials may not do this; the bucket's policy has to allow list, get, put and delete."
    else:
        advice = ""

    return DestinationRejected(f"{where}: {doing} was refused: {said}", code=code, hint=advice or None)
