"""Folders on an object store (``s3://``, ``gs://``), worked on through a local copy on each node.

The store is the truth: ``pull`` makes the local copy what the store has, ``push`` adds to the store
what changed here. Stores replace an object whole, so nobody ever reads half of one. Credentials
and the address of the store come from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...),
never from a URI.
"""

from __future__ import annotations

import mmap
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from maskcls.progress import OnProgress
from maskcls.storage import files

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem


Result = TypeVar("Result")
Wanted = Callable[[str], bool]
"""Whether a file is meant, by its path below the folder."""

CONNECT_S: Final = 5.0
"""Seconds to wait for a connection."""
SILENCE_S: Final = 10.0
"""Seconds without a byte after which a request counts as lost, some 7 s later."""
ATTEMPTS: Final = 2
"""How often the client of a store asks within a try."""
PAUSES_S: Final = (2.0, 8.0)
"""Pauses between tries: a store that falls silent for good is given up within two minutes."""
THREADS: Final = 16
"""Transfers side by side: each waits for the network most of the time."""
YOUNG_S: Final = 5.0
"""Seconds for which an object may be replaced within the second that the store tells: one second,
and what the clocks of a node and a store may differ by."""

_CHUNK: Final = 8 * 2**20
LOCK: Final = ".pull.lock"
_NOT_FOUND: Final = "No such file or directory"
_REFUSED: Final = re.compile(
    "ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE_DOES_NOT|EXPIRED|INVALID_CLIENT_TOKEN"
    "|UNRECOGNIZED_CLIENT|PERMISSION_DENIED|UNAUTHENTICATED|OAuth2 access token"
)
_TRANSIENT: Final = re.compile(
    "NETWORK_CONNECTION|SLOW_DOWN|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|REQUEST_TIME|THROTTLING"
    "|UNAVAILABLE|DEADLINE_EXCEEDED|curlCode|CURL error"
)


class StorageError(RuntimeError):
    """What a store does not do, and what to mend. ``transient``: it may do so when asked again."""

    def __init__(self, message: str, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.transient)


class Store:
    """The folder of a URI on its store; what goes wrong is raised as StorageError."""

    def __init__(self, uri: str) -> None:
        from pyarrow import fs

        self._uri = uri
        scheme, _, self._folder = uri.partition("://")
        with self._as_storage_errors():
            if scheme == "gs":
                limit = timedelta(seconds=3 * SILENCE_S)
                self._system: FileSystem = fs.GcsFileSystem(retry_time_limit=limit)
                return
            self._system = fs.S3FileSystem(
                endpoint_override=endpoint(),
                region=region(),
                connect_timeout=CONNECT_S,
                # pyarrow's documentation says that Linux ignores it; its curl does not.
                request_timeout=SILENCE_S,
                retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
                allow_delayed_open=True,  # a small file is one request, not three
            )

    def listing(self) -> dict[str, State]:
        """The files below the folder, without hidden ones and names that are no paths."""
        from pyarrow import fs

        with self._as_storage_errors():
            try:
                # Not allow_not_found: that takes a bucket that does not exist for an empty one.
                found = self._system.get_file_info(fs.FileSelector(self._folder, recursive=True))
            except OSError as error:
                if not isinstance(error, FileNotFoundError) and _NOT_FOUND not in str(error):
                    raise
                bucket = self._folder.partition("/")[0]
                # S3 has said so by now.
                if self._system.type_name == "gcs" and not _exists(self._system, bucket):
                    raise _no_bucket(self._uri) from None
                return {}
        states = {
            info.path[len(self._folder) + 1 :]: _state_of(info) for info in found if info.is_file
        }
        # A key may be any text, also one that leads out of the local copy.
        return {
            name: states[name]
            for name in sorted(states)
            if all(part and not part.startswith(".") for part in name.split("/"))
        }

    def state(self, name: str) -> State:
        """What ``listing`` tells of one file. Raises StorageError where there is none."""
        with self._as_storage_errors(name):
            info = self._system.get_file_info(f"{self._folder}/{name}")
        if not info.is_file:
            raise StorageError(f"{self._uri}/{name}: no such object")
        return _state_of(info)

    def fetch(self, name: str, target: Path, state: State) -> None:
        """Replace ``target`` by the object, which is known to have ``state``."""
        with_retries(lambda: self._fetch(name, target, state))

    def _fetch(self, name: str, target: Path, state: State) -> None:
        with files.replacing(target) as temporary, temporary.open("wb") as out:
            for block in self._blocks(name):
                out.write(block)
            out.flush()
            if out.tell() != state[0]:
                raise StorageError(
                    f"{self._uri}/{name}: {out.tell()} of {state[0]} bytes came; if it was changed "
                    "meanwhile, start again",
                    transient=True,
                )
            # Stores tell whole seconds: a young object may be replaced within this one, and by one
            # of the same size. Its copy gets another time, so that the next pull fetches it again.
            young = time.time() - state[1] / 1e9 < YOUNG_S
            os.utime(out.fileno(), ns=(state[1] + young,) * 2)

    def _blocks(self, name: str) -> Iterator[bytes]:
        with self._as_storage_errors(name):
            try:
                stream = self._system.open_input_stream(f"{self._folder}/{name}")
            except FileNotFoundError:
                raise StorageError(f"{self._uri}/{name}: gone meanwhile; start again") from None
        with stream:
            while True:
                with self._as_storage_errors(name):
                    block: bytes = stream.read(_CHUNK)
                if not block:
                    return
                yield block

    def send(self, source: Path, name: str) -> None:
        """Replace the object by ``source``, whose time becomes the one that the store tells."""
        with_retries(lambda: self._send(source, name))

    def _send(self, source: Path, name: str) -> None:
        with source.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            # Mapped, not read in parts: a file that cannot be read must not end as half an object.
            self._write(
                name, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if size else b""
            )
            with self._as_storage_errors(name):
                info = self._system.get_file_info(f"{self._folder}/{name}")
            if not info.is_file or info.size != size:
                raise StorageError(f"{self._uri}/{name}: did not arrive whole", transient=True)
            # Of the file that was sent: one that has replaced it meanwhile is still to be sent.
            os.utime(file.fileno(), ns=(_state_of(info)[1],) * 2)

    def read(self, name: str) -> bytes | None:
        """The content of a small object, also of a hidden one; None where there is none."""

        def once() -> bytes | None:
            path = f"{self._folder}/{name}"
            try:
                with self._as_storage_errors(name), self._system.open_input_stream(path) as stream:
                    return bytes(stream.read())
            except FileNotFoundError:
                return None

        return with_retries(once)

    def write(self, name: str, content: bytes) -> None:
        """Replace a small object."""
        with_retries(lambda: self._write(name, content))

    def _write(self, name: str, content: bytes | mmap.mmap) -> None:
        path = f"{self._folder}/{name}"
        try:
            with self._as_storage_errors(name), self._system.open_output_stream(path) as stream:
                stream.write(content)
        except FileNotFoundError:
            raise _no_bucket(self._uri) from None

    def remove(self, name: str) -> None:
        """Remove an object, where there is one."""

        def once() -> None:
            with self._as_storage_errors(name), suppress(FileNotFoundError):
                self._system.delete_file(f"{self._folder}/{name}")

        with_retries(once)

    @contextmanager
    def _as_storage_errors(self, name: str = "") -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise storage_error(f"{self._uri}/{name}".rstrip("/"), str(error)) from None


def endpoint() -> str | None:
    """The address of an S3 server other than Amazon's."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def region() -> str | None:
    """The region of a bucket. A server of one's own has none, but signatures name one."""
    named = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return named or ("us-east-1" if endpoint() else None)


State = tuple[int, int]
"""Size in bytes and time of change in ns. A local copy gets the time that the store tells, in
whole seconds, and is known by it: whatever is written here later has another time. A copy of a
young object gets a time that is 1 ns later."""


def _state_of(info: FileInfo) -> State:
    return info.size, info.mtime_ns // 10**9 * 10**9


def file_state(path: Path) -> State | None:
    """Size and time of the last change, or None where no such file can be seen."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


def is_copy(path: Path, state: State | None) -> bool:
    """Whether a file was fetched as, or sent to, the object of this state and not changed since."""
    here = file_state(path)
    return here is not None and state is not None and here in (state, (state[0], state[1] + 1))


def local_names(folder: Path) -> Iterator[str]:
    """The files below a folder, without hidden ones and links."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if not name.startswith(".") and not path.is_symlink():
                yield path.relative_to(folder).as_posix()


def prune(folder: Path) -> None:
    """Remove the folders below that have nothing in them: stores know no empty ones."""
    for entry in [entry for entry in folder.iterdir() if not entry.name.startswith(".")]:
        if entry.is_dir() and not entry.is_symlink():
            prune(entry)
            if all(rest.name == LOCK for rest in entry.iterdir()):
                shutil.rmtree(entry)


def in_threads(
    do: Callable[[str], None],
    names: Sequence[str],
    progress: OnProgress = lambda done, total: None,
) -> None:
    """``do`` each name in threads. The first failure is raised, and nothing new begun after it."""
    pool = ThreadPoolExecutor(THREADS)
    try:
        for done, _ in enumerate(pool.map(do, names), 1):
            progress(done, len(names))
    finally:
        pool.shutdown(cancel_futures=True)


def with_retries(do: Callable[[], Result]) -> Result:
    """Do it again after what may pass."""
    for pause_s in PAUSES_S:
        try:
            return do()
        except StorageError as error:
            if not error.transient:
                raise
        time.sleep(pause_s)
    return do()


def _exists(system: FileSystem, path: str) -> bool:
    from pyarrow import fs

    return system.get_file_info(path).type is not fs.FileType.NotFound


def _no_bucket(uri: str) -> StorageError:
    bucket = "/".join(uri.split("/")[:3])
    return StorageError(f"{uri}: there is no bucket {bucket}; create it or correct the name")


def storage_error(uri: str, reason: str) -> StorageError:
    """What a client of a store said, and what to do about it."""
    reason = re.sub(r" \(Request ID.*?\)| error_info=.*", "", reason.partition("\n")[0])[:300]
    if re.search("NO_SUCH_BUCKET|bucket does not exist", reason):
        return _no_bucket(uri)
    if _REFUSED.search(reason):
        return StorageError(
            f"{uri}: the store refuses this access ({reason}); set {_VARIABLES[uri[:2]]} in the "
            "environment of every node to those of somebody who may list, read, write and delete "
            "there"
        )
    address = ", and AWS_ENDPOINT_URL the store's address" if uri.startswith("s3") else ""
    return StorageError(
        f"{uri}: {reason}; is the network up{address}?",
        transient=_TRANSIENT.search(reason) is not None,
    )


_VARIABLES: Final = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
}
