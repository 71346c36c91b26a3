"""What a node is like: gathered on it, as plain facts; ``diagnosis`` judges them.

Imports nothing but the standard library and Ray, since a node that lacks something else must be
able to say so.
"""

from __future__ import annotations

import hashlib
import json
import platform
import resource
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

import ray._private.utils
import ray._private.worker
from ray._private.authentication.authentication_utils import is_token_auth_enabled

PACKAGES = (
    "ray", "torch", "torchvision", "timm", "albumentations", "opencv-python-headless", "numpy",
    "pandas", "pyarrow", "pydantic", "safetensors", "scikit-learn", "pillow",
)  # fmt: skip
"""What the code on a node imports."""

ROOMS = ("maskcls", "ray_jobs")
CONNECT_S = 3.0
"""How long a port may take to answer."""

PROGRAM_S = 60.0
"""How long torch may take to import and to try every GPU, and nvidia-smi to answer."""

UNMARKED = "a folder is there, without what the driver just wrote"

TRY_TORCH = """
import json, torch, warnings
warnings.simplefilter("ignore")
told = {"cuda": torch.version.cuda, "count": torch.cuda.device_count(), "error": None}
try:
    torch.cuda.init()
    for number in range(told["count"]):
        torch.ones(8, device=f"cuda:{number}").sum().item()
except (RuntimeError, AssertionError) as error:
    told["error"] = str(error).splitlines()[0]
print(json.dumps(told))
"""


@dataclass(frozen=True)
class Environment:
    """What a process runs on. ``code`` is a digest of this program's own source files, as imported
    there; ``packages`` maps names to versions, None for what is missing."""

    python: str
    packages: dict[str, str | None]
    code: str
    token: bool


@dataclass(frozen=True)
class Gpus:
    """GPUs as nvidia-smi lists them, and as torch can compute on them."""

    names: list[str]
    driver: str | None
    cuda: str | None
    usable: int
    error: str | None


@dataclass(frozen=True)
class PathFacts:
    """A path, or the URI of a folder on an object store, as one node finds it. ``error`` says why
    it cannot be used; ``listing`` is a digest of the names in it, where those were asked for."""

    path: str
    error: str | None = None
    listing: str | None = None
    free: int = 0
    """Bytes."""
    total: int = 0
    """0 on an object store."""


@dataclass(frozen=True)
class Port:
    """Something that a node must be able to connect to."""

    name: str
    host: str
    number: int

    def __str__(self) -> str:
        return f"{self.name} at {self.host}:{self.number}"


@dataclass(frozen=True)
class Mark:
    """A file that the driver wrote, and what is in it: who reads the same sees the same folder."""

    file: str
    text: str


@dataclass(frozen=True)
class Asked:
    """What every node is asked."""

    run_dir: Path | str
    mark: Mark | None
    data_root: Path | str
    cache: Path
    ports: tuple[Port, ...]


@dataclass(frozen=True)
class NodeFacts:
    """A node. Sizes in bytes; a limit of None is no limit."""

    environment: Environment
    cpu: str
    gpus: Gpus
    run_dir: PathFacts
    data_root: PathFacts
    cache: PathFacts
    ray_temp: PathFacts
    memory: int
    memory_used: int
    shm: int
    open_files: int | None
    processes: int | None
    unreachable: list[str]


def gather(asked: Asked) -> NodeFacts:
    """The facts of this machine, from a Ray worker on it; nothing here waits without a limit."""
    temp = ray._private.worker._global_node
    assert temp is not None, "only a process that Ray knows can say where Ray's files lie"
    return NodeFacts(
        environment=environment(),
        cpu=_cpu(),
        gpus=_gpus(),
        run_dir=check_path(asked.run_dir, mark=asked.mark, write=True),
        data_root=check_path(asked.data_root, listing=True),
        cache=check_path(asked.cache, write=True),
        ray_temp=check_path(Path(temp.get_session_dir_path())),
        memory=ray._private.utils.get_system_memory(),
        memory_used=ray._private.utils.get_used_memory(),
        shm=shutil.disk_usage("/dev/shm").total if Path("/dev/shm").is_dir() else 0,
        open_files=_limit(resource.RLIMIT_NOFILE),
        processes=_processes(),
        unreachable=_unreachable(asked.ports),
    )


def environment() -> Environment:
    """What this process runs on."""
    return Environment(
        python=platform.python_version(),
        packages={name: _version(name) for name in PACKAGES},
        code=code_digest(),
        token=is_token_auth_enabled(),
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def clock() -> float:
    """Seconds since 1970, as this machine believes."""
    return time.time()


def code_digest() -> str:
    """Changes when a line of this program does: versions are not raised at every change."""
    digest = hashlib.blake2b(digest_size=6)
    for room in ROOMS:
        found = util.find_spec(room)
        assert found is not None
        for folder in found.submodule_search_locations or ():
            for path in sorted(Path(folder).glob("*.py")):
                digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def check_path(
    path: Path | str, *, mark: Mark | None = None, write: bool = False, listing: bool = False
) -> PathFacts:
    """How this machine finds ``path``: whether it sees the driver's ``mark`` there, whether it can
    ``write`` there (a folder that does not exist is made and removed again), the names in it.
    Of a URI, whether its store answers and the mark is there."""
    if isinstance(path, str):
        return PathFacts(path, _store_fault(path, mark))
    names = None
    try:
        if mark is not None and not _sees(path, mark):
            return PathFacts(str(path), UNMARKED)
        if listing:
            names = _listing(path)
        if write:
            with made(path):
                own = path / f".doctor-{uuid.uuid4().hex}"
                try:
                    own.write_text("seen", encoding="utf-8")
                finally:
                    own.unlink(missing_ok=True)
    except OSError as error:
        return PathFacts(str(path), error.strerror or str(error))
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    usage = shutil.disk_usage(there)
    return PathFacts(str(path), None, names, usage.free, usage.total)


def _store_fault(uri: str, mark: Mark | None) -> str | None:
    from maskcls.storage.remote import StorageError, Store  # pyarrow, which a node may lack

    try:
        store = Store(uri)
        store.listing()
        unmarked = mark is not None and store.read(mark.file) != mark.text.encode()
    except StorageError as error:
        return str(error)
    return UNMARKED if unmarked else None


def _sees(path: Path, mark: Mark) -> bool:
    """Raises OSError where there is no such folder."""
    path.stat()
    try:
        return (path / mark.file).read_text(encoding="utf-8") == mark.text
    except FileNotFoundError:
        return False


def _listing(path: Path) -> str:
    """A digest of the names in ``path`` and in the folders of photos."""
    digest = hashlib.blake2b(digest_size=6)
    for folder in (path, path / "train" / "images", path / "eval" / "images"):
        if folder.is_dir() or folder == path:
            digest.update("\n".join(sorted(entry.name for entry in folder.iterdir())).encode())
    return digest.hexdigest()


@contextmanager
def made(path: Path) -> Iterator[None]:
    """The folder ``path``; what had to be made for it is removed again, where it stays empty."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()


def _gpus() -> Gpus:
    listed = _told(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"])
    rows = [line.rpartition(", ") for line in (listed or "").splitlines() if ", " in line]
    # In a process of its own: Ray hides GPUs from tasks that ask for none, an import takes
    # memory, and a broken driver may take the process with it.
    told = _told([sys.executable, "-c", TRY_TORCH])
    try:
        torch = json.loads((told or "").splitlines()[-1])
    except (IndexError, ValueError):
        torch = {"cuda": None, "count": 0, "error": "torch cannot be imported"}
    return Gpus(
        names=[name for name, _, _ in rows],
        driver=rows[0][2] if rows else None,
        cuda=torch["cuda"],
        usable=0 if torch["error"] else torch["count"],
        error=torch["error"],
    )


def _told(command: Sequence[str]) -> str | None:
    """What a program prints; None where it is not there, fails or takes too long."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PROGRAM_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _cpu() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _limit(which: int) -> int | None:
    soft, _ = resource.getrlimit(which)
    return None if soft == resource.RLIM_INFINITY else soft


def _processes() -> int | None:
    """The lower of the user's limit and the container's."""
    limits = [_limit(resource.RLIMIT_NPROC)]
    with suppress(OSError, ValueError):
        limits.append(int(Path("/sys/fs/cgroup/pids.max").read_text(encoding="ascii")))
    return min((limit for limit in limits if limit is not None), default=None)


def _unreachable(ports: Sequence[Port]) -> list[str]:
    def reaches(port: Port) -> bool:
        try:
            socket.create_connection((port.host, port.number), CONNECT_S).close()
        except OSError:
            return False
        return True

    with ThreadPoolExecutor(32) as threads:
        answers = threads.map(reaches, ports)
        return [str(port) for port, there in zip(ports, answers, strict=True) if not there]
