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

__all__ = ["CONFLICTS", "FAILURES", "check_removed", "code_of", "translated"]

FAILURES = (ClientError, BotoCoreError, aiohttp.ClientError, OSError, TimeoutError)
"""What the driver raises."""
CONFLICTS = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
"""A conditional request came too late."""
_AGAIN = frozenset(
    {
        "400",  # of something on the way: the service itself says more
        "408",
        "IncompleteBody",
        "InternalError",
        "NoSuchUpload",  # its parts are gone, or it has been completed and the answer was lost: it is begun again
        "OperationAborted",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
    }
)
_CREDENTIALS = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken"})
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
_REGION = frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"})
_GONE = frozenset({"NoSuchKey", "NoSuchVersion", "NotFound"})
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
        return DestinationRejected(f"{where}: {doing} failed: {_line(str(error))}", code=type(error).__name__)

    said = _line(str(error)) or type(error).__name__

    return DestinationUnavailable(f"{where}: {doing} failed: {said}. Is the server reachable?")


def check_removed(answer: Mapping[str, object], config: S3Config) -> None:
    """Objects are removed many at a time: the answer to the whole says what became of each.

    Raises:
        DestinationRejected: One may not be removed.
        DestinationUnavailable: One could not be removed now.
    """
    errors = cast("list[Mapping[str, str]]", answer.get("Errors", []))

    for one in errors:
        code, said = one.get("Code", ""), _line(one.get("Message", ""))
        what = f"{config.location}: deleting {one.get('Key')}"

        if code in _AGAIN:
            raise DestinationUnavailable(f"{what} failed: {code}: {said}")

        if code not in _GONE:
            raise DestinationRejected(
                f"{what} was refused: {said or code}.",
                code=code,
                hint="the bucket's policy has to allow list, get, put and delete.",
            )


def _refused(error: ClientError, config: S3Config, where: str, doing: str) -> AsynceltError:
    code = code_of(error)
    answer = cast("Mapping[str, Mapping[str, object]]", error.response)
    status = cast("int", answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    said = _line(str(answer.get("Error", {}).get("Message") or code))

    if status >= _SERVER_ERROR or code in _AGAIN:
        return DestinationUnavailable(f"{where}: {doing} failed: {code}: {said}{_stranger(code, config)}")

    if code == "NoSuchBucket":
        advice = f"Create the bucket {config.bucket!r}, or correct the address or the endpoint_url."
    elif code in _CREDENTIALS:
        advice = "Correct the credentials: access key, secret key, and session token if there is one."
    elif code in _EXPIRED:
        advice = "These credentials were for a time, which is over: get new ones, with their session token."
    elif code in _REGION:
        advice = _region(answer, config)
    elif code == "RequestTimeTooSkewed":
        advice = "The clock of this machine is wrong: set it."
    elif status == 403:
        advice = "These credentials may not do this; the bucket's policy has to allow list, get, put and delete."
    else:
        advice = ""

    return DestinationRejected(f"{where}: {doing} was refused: {said}", code=code, hint=advice or None)


def _region(answer: Mapping[str, Mapping[str, object]], config: S3Config) -> str:
    headers = cast("Mapping[str, str]", answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}))
    right = headers.get("x-amz-bucket-region") or answer.get("Error", {}).get("Region")
    given = f"than {config.region_name!r}" if config.region_name else "than the one that was assumed"

    if not right:
        return f"The bucket is in another region {given}: pass its region_name."

    return f"The bucket is in another region {given}: pass region_name={right!r}."


def _stranger(code: str, config: S3Config) -> str:
    """What the driver makes of an answer that it cannot read has a number for its code."""
    if not code.isdecimal() or config.endpoint_url is None:
        return ""

    return ". Does a service that speaks S3 answer at this endpoint_url?"


def _line(text: str) -> str:
    return " ".join(text.split())
