"""Failures of object storage as one line: what was found, what was expected, what to do."""

import re

from pellucid.errors import StorageError
from pellucid.storage.urls import Url

_CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE with boto3 installed; "
    "AWS_SKIP_SIGNATURE=true reads public buckets",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth application-default login`",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or run `az login`",
}

_ENDPOINTS = {"s3": "AWS_ENDPOINT_URL", "gs": "GOOGLE_BASE_URL", "az": "AZURE_STORAGE_ENDPOINT"}

_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"}
_SKEWED = {"RequestTimeTooSkewed", "RequestInTheFuture"}
_NO_BUCKET = {"NoSuchBucket", "ContainerNotFound", "InvalidBucketName", "AccountNotFound", "InvalidResourceName"}
_BAD_KEYS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "AuthFailure", "InvalidSecurity"}
_WRONG_REGION = {"AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"}


def missing(url: Url) -> StorageError:
    """The error for an object that does not exist."""
    return StorageError(f"{url} does not exist", hint="check the name")


def explain(error: Exception, url: Url, doing: str) -> StorageError:
    """The error of the client in one line. doing: "reading", "writing" or "listing"."""
    text = str(error)
    code = _find(r"<Code>\s*(\w+)", text) or _find(r'"code":\s*"(\w+)', text)
    status = int(_find(r"status code: (\d{3})", text) or 0)
    place = f"the server {url.bucket}" if url.is_web else f"the bucket {url.scheme}://{url.bucket}"
    if code in _NO_BUCKET:
        return StorageError(f"{place} does not exist", hint="check its name, the account and the endpoint")
    if code in _EXPIRED:
        return StorageError(
            f"the credentials for {place} have expired", hint="renew them, e.g. by logging in again"
        )
    if code in _SKEWED:
        return StorageError(
            f"the clock of this computer differs too much from that of {place}", hint="set the clock"
        )
    if code in _WRONG_REGION or "without LOCATION" in text:
        region = _find(r"<Region>([\w-]+)", text) or _find(r"expecting '([\w-]+)'", text)
        return StorageError(
            f"{place} is in another region{f', {region}' if region else ''}",
            hint=f"set AWS_REGION={region or 'to the region of the bucket'}",
        )
    if code in _BAD_KEYS or status == 401:
        reason = code or "401 Unauthorized"
        return StorageError(f"{place} does not accept the credentials ({reason})", hint=_hint_credentials(url))
    if status == 403 and "/latest/api/token" not in text:
        return StorageError(f"{doing} {url} is not permitted", hint="check the credentials and their permissions")
    if _asks_for_credentials(text):
        return StorageError(f"no credentials for {place} were found", hint=_hint_credentials(url))
    if "invalid path" in text or "Could not parse path" in text:
        return StorageError(
            f"{doing} {url} failed: a name contains a part that is empty, . or .., or a control character",
            hint="rename or move that object",
        )
    if isinstance(error, FileNotFoundError) or status == 404:
        return missing(url)
    if status in (429, 500, 502, 503, 504):
        return StorageError(
            f"{doing} {url} failed, also when repeated: {status} {code}".rstrip(), hint="try later"
        )
    if reason := _find_network_reason(text):
        return StorageError(f"{doing} {url} failed: {reason}", hint=_hint_network(url, text))
    reason = f"{status} {code}" if status and code else _first_line(text)
    return StorageError(f"{doing} {url} failed: {reason}")


def _hint_credentials(url: Url) -> str:
    return _CREDENTIALS.get(url.scheme, "check the URL, which may have expired")


def _hint_network(url: Url, text: str) -> str:
    host = _find(r"https?://([^/\s?,]+)", text)
    variable = f" and {_ENDPOINTS[url.scheme]}" if url.scheme in _ENDPOINTS else ""
    return f"check the network{variable}{f' ({host})' if host else ''}"


def _asks_for_credentials(text: str) -> bool:
    places = ("169.254.169.254", "169.254.170.2", "metadata.google.internal", "login.microsoftonline.com")
    return (
        any(place in text for place in places) or "MissingAccount" in text or "Account must be specified" in text
    )


def _find_network_reason(text: str) -> str:
    lowered = text.lower()
    if "dns error" in lowered:
        return "its host is not known"
    if "connection refused" in lowered:
        return "the connection was refused"
    if "timed out" in lowered or "timeout" in lowered.replace("retry_timeout", ""):
        return "the server did not answer in time"
    if "certificate" in lowered:
        return "the certificate of the server is not trusted"
    if "error sending request" in lowered or "connection" in lowered:
        return "the connection failed"
    return ""


def _first_line(text: str) -> str:
    line = text.partition("\n")[0]
    return line.partition(": Error performing")[2].strip()[:200] or line[:200]


def _find(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    return match[1] if match else ""
