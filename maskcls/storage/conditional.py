"""A small object of a store that many programs write: each replaces only what it has seen.

By conditional writes (`If-None-Match` and `If-Match` of S3, generations of Google's store), which
pyarrow's file systems do not have; so here alone a store is reached by obstore.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from maskcls.storage import remote
from maskcls.storage.remote import StorageError

_ATTEMPTS = 2
"""How often the client asks again."""


class ConditionalObject:
    """The object ``name`` in the folder of ``uri``. What goes wrong is raised as StorageError."""

    def __init__(self, uri: str, name: str) -> None:
        self._uri, self._name = uri, name
        with self._as_storage_errors():
            self._store = _store(uri)
        self._seen: dict[str, str] | None = None
        self.changed = 0.0
        """When it was replaced last, as read, in seconds since 1970 by the store's clock."""

    def read(self) -> bytes:
        """Its content; empty where there is no such object."""
        with self._as_storage_errors():
            try:
                found = self._store.get(self._name)
            except FileNotFoundError as error:
                if "NoSuchBucket" in str(error):
                    raise
                self._seen = None
                return b""
            content = bytes(found.bytes())
            self._seen = _version(found.meta)
            self.changed = found.meta["last_modified"].timestamp()
            return content

    def replace(self, content: bytes) -> bool:
        """Replace what was read or written last by ``content``; False where another program was
        faster, after which it has to be read again."""
        from obstore.exceptions import AlreadyExistsError, NotSupportedError, PreconditionError

        with self._as_storage_errors():
            try:
                mode = "create" if self._seen is None else self._seen
                self._seen = _version(self._store.put(self._name, content, mode=mode))
                return True
            except (AlreadyExistsError, PreconditionError, FileNotFoundError) as error:
                if "NoSuchBucket" in str(error):
                    raise
            except NotSupportedError:
                raise StorageError(
                    f"{self._uri}: this store has no conditional writes (If-None-Match, If-Match), "
                    "without which two programs could work in one run: use a newer version of it"
                ) from None
        # It may have been our own write, whose answer was lost and which was sent again.
        return self.read() == content

    @contextmanager
    def _as_storage_errors(self) -> Iterator[None]:
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        try:
            yield
        except (BaseError, OSError) as error:
            reason = str(error)
            # In the words of the other client of stores.
            if "NoSuchBucket" in reason:
                reason = "NO_SUCH_BUCKET"
            elif isinstance(error, PermissionDeniedError | UnauthenticatedError):
                reason = "ACCESS_DENIED"
            raise remote.storage_error(f"{self._uri}/{self._name}", reason) from None


def _version(answer: Any) -> dict[str, str]:
    return {key: answer[key] for key in ("e_tag", "version") if answer.get(key) is not None}


def _store(uri: str) -> Any:
    from obstore.auth.boto3 import Boto3CredentialProvider
    from obstore.store import GCSStore, S3Store

    scheme, _, path = uri.partition("://")
    bucket, _, prefix = path.partition("/")
    silence = timedelta(seconds=remote.SILENCE_S)
    options: dict[str, Any] = {
        "client_options": {
            "connect_timeout": timedelta(seconds=remote.CONNECT_S),
            "timeout": silence,
            "allow_http": True,
        },
        "retry_config": {"max_retries": _ATTEMPTS, "retry_timeout": 3 * silence},
    }
    if scheme == "gs":
        return GCSStore(bucket, prefix=prefix, **options)
    if endpoint := remote.endpoint():
        options |= {"endpoint": endpoint, "virtual_hosted_style_request": False}
    # Credentials as the other transfers find them: environment, profile, role of the machine.
    credentials = Boto3CredentialProvider()
    region = remote.region()
    return S3Store(bucket, prefix=prefix, region=region, credential_provider=credentials, **options)
