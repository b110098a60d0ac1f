"""Clients of buckets and web servers, configured as the tools of the clouds are."""

import os
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pellucid.errors import MissingExtraError, StorageError
from pellucid.storage.urls import Url

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

RETRY: "RetryConfig" = {
    "max_retries": 8,
    "retry_timeout": timedelta(minutes=2),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=10), "base": 2},
}
"""Failures that may pass (status 429 and 5xx, dropped connections) are repeated for half a minute, others not."""

_READ_TIMEOUT = timedelta(seconds=60)
"""How long a server may be silent. A whole object has no limit: it may be large, and the network slow."""

ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
"""Environment variables with the address of another server than the cloud's, for each scheme."""

_PREFIXES = ("AWS_", "GOOGLE_", "AZURE_", "HTTP", "http", "NO_PROXY", "no_proxy")


def open_store(url: Url) -> "ObjectStore":
    """The client for a bucket or server. Raises StorageError if it cannot be configured, and MissingExtraError."""
    environment = tuple(sorted(item for item in os.environ.items() if item[0].startswith(_PREFIXES)))
    base = f"{url.scheme}://{url.bucket}/{url.key}" if url.is_web else f"{url.scheme}://{url.bucket}"
    return _open_store(url.scheme, url.bucket, base, environment)


@lru_cache(maxsize=64)
def _open_store(scheme: str, bucket: str, base: str, environment: tuple[tuple[str, str], ...]) -> "ObjectStore":
    """environment: what the client reads from it; part of the key, as programs may change it."""
    try:
        from obstore import store
        from obstore.exceptions import BaseError
    except ImportError:
        raise MissingExtraError(f"{scheme}://", "cloud") from None
    options: ClientConfig = {"timeout": timedelta(days=1), "read_timeout": _READ_TIMEOUT}
    try:
        if scheme == "s3":
            return _open_s3(bucket, options)
        _allow_http(options, scheme)
        if scheme == "gs":
            return store.GCSStore(bucket, client_options=options, retry_config=RETRY)
        if scheme == "az":
            return store.AzureStore(bucket, client_options=options, retry_config=RETRY)
        options["allow_http"] = True  # whoever writes http:// means it
        return store.HTTPStore.from_url(base, client_options=options, retry_config=RETRY)
    except (ValueError, BaseError) as error:
        raise StorageError(
            f"{scheme}://{bucket} cannot be opened: {str(error).partition(chr(10))[0][:200]}"
        ) from error


def _open_s3(bucket: str, options: "ClientConfig") -> "ObjectStore":
    from obstore.store import S3Store

    settings: dict[str, Any] = {}
    provider = _find_profile()
    if provider is not None:
        settings["credential_provider"] = provider
    _allow_http(options, "s3")
    return S3Store(bucket, client_options=options, retry_config=RETRY, **settings)


def _allow_http(options: "ClientConfig", scheme: str) -> None:
    """Without encryption, only servers on this computer are used unasked.

    Raises StorageError for other endpoints without encryption, and for one that is not a URL.
    """
    name, endpoint = next(
        ((name, os.environ[name]) for name in ENDPOINTS.get(scheme, ()) if os.environ.get(name)), ("", "")
    )
    host = _find_host(endpoint)
    if endpoint and not host:  # obstore would abort with a panic
        raise StorageError(
            f"{name}={endpoint[:80]} is not a URL of a server", hint="use https://HOST or http://HOST"
        )
    if not endpoint.startswith("http://"):
        return
    variable = f"{ENDPOINTS[scheme][0].partition('_')[0]}_ALLOW_HTTP"
    is_allowed = os.environ.get(variable, "").lower() in ("1", "true", "yes", "on")
    if not is_allowed and host != "localhost" and not host.startswith("127.") and host != "::1":
        raise StorageError(
            f"the endpoint {endpoint} is not encrypted", hint=f"use https://, or set {variable}=true"
        )
    options["allow_http"] = True


def _find_host(endpoint: str) -> str:
    """The host of a URL of a server; "" for other texts."""
    try:
        parts = urlsplit(endpoint)
        is_url = parts.scheme in ("http", "https") and parts.port != 0 and " " not in endpoint
    except ValueError:
        return ""
    return (parts.hostname or "") if is_url else ""


def _find_profile() -> Any:
    """boto3's provider if credentials are in profile files and not in the environment, which takes precedence.

    Raises MissingExtraError if a profile is chosen and boto3 is not installed.
    """
    if os.environ.get("AWS_ACCESS_KEY_ID") or os.environ.get("AWS_SKIP_SIGNATURE"):
        return None
    chosen = os.environ.get("AWS_PROFILE")
    home = Path.home() / ".aws"
    names = (
        (os.environ.get("AWS_SHARED_CREDENTIALS_FILE"), home / "credentials"),
        (
            os.environ.get("AWS_CONFIG_FILE"),
            home / "config",
        ),
    )
    if not chosen and not any(Path(given or usual).is_file() for given, usual in names):
        return None
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        if not chosen:
            return None
        raise StorageError(f"the profile {chosen} of AWS_PROFILE needs boto3", hint="pip install boto3") from None
    try:
        return Boto3CredentialProvider()
    except Exception as error:  # botocore's own, e.g. for an unknown profile
        if not chosen:
            return None
        raise StorageError(f"the profile {chosen} cannot be used: {error}", hint="check AWS_PROFILE") from error
