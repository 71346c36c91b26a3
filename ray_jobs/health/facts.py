"""What a node is like: gathered on it, as plain facts; ``diagnosis`` judges them.

Imports nothing but the standard library and Ray, since a node that lacks something else must be
able to say so.
"""

from __future__ import annotations

import hashlib
import json
import os
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

import ray

PACKAGES = (
    "ray", "torch", "torchvision", "timm", "albumentations", "opencv-python-headless", "numpy",
    "pandas", "pyarrow", "pydantic", "safetensors", "scikit-learn", "pillow",
)  # fmt: skip
"""What the code on a node imports."""

OWN_PACKAGES = ("maskcls", "ray_jobs")
CONNECT_S = 3.0
"""How long a port may take to answer."""

CGROUP = Path("/sys/fs/cgroup")
PROGRAM_S = 60.0
"""How long torch may take to import and to try every GPU, and nvidia-smi to answer."""

UNMARKED = "a folder is there, without what the driver just wrote"

TRY_TORCH = """
import json, torch, warnings
warnings.simplefilter("ignore")
found = {"cuda": torch.version.cuda, "count": torch.cuda.device_count(), "error": None}
try:
    torch.cuda.init()
    for number in range(found["count"]):
        torch.ones(8, device=f"cuda:{number}").sum().item()
except (RuntimeError, AssertionError) as error:
    found["error"] = str(error).splitlines()[0]
print(json.dumps(found))
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
    memory, memory_used = _memory()
    return NodeFacts(
        environment=environment(),
        cpu=_cpu(),
        gpus=_gpus(),
        run_dir=check_path(asked.run_dir, mark=asked.mark, write=True),
        data_root=check_path(asked.data_root, listing=True),
        cache=check_path(asked.cache, write=True),
        ray_temp=check_path(Path(ray.get_runtime_context().get_temp_dir())),
        memory=memory,
        memory_used=memory_used,
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
        token=os.environ.get("RAY_AUTH_MODE", "").lower() == "token",
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
    for room in OWN_PACKAGES:
        found = util.find_spec(room)
        assert found is not None
        for folder in found.submodule_search_locations or ():
            for path in sorted(Path(folder).rglob("*.py")):
                digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
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
    listed = _output(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"])
    rows = [line.rpartition(", ") for line in (listed or "").splitlines() if ", " in line]
    # In a process of its own: Ray hides GPUs from tasks that ask for none, an import takes
    # memory, and a broken driver may take the process with it.
    printed = _output([sys.executable, "-c", TRY_TORCH])
    try:
        torch = json.loads((printed or "").splitlines()[-1])
    except (IndexError, ValueError):
        torch = {"cuda": None, "count": 0, "error": "torch cannot be imported"}
    return Gpus(
        names=[name for name, _, _ in rows],
        driver=rows[0][2] if rows else None,
        cuda=torch["cuda"],
        usable=0 if torch["error"] else torch["count"],
        error=torch["error"],
    )


def _output(command: Sequence[str]) -> str | None:
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


def _memory() -> tuple[int, int]:
    """Bytes that this machine, or its container, has and uses; files in the page cache are free."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    kib = {name: int(rest.split()[0]) for name, _, rest in (x.partition(":") for x in lines)}
    total = 1024 * kib["MemTotal"]
    used = total - 1024 * kib["MemAvailable"]
    with suppress(OSError, ValueError, KeyError):
        most = int((CGROUP / "memory.max").read_text(encoding="ascii"))
        stat = (CGROUP / "memory.stat").read_text(encoding="ascii").splitlines()
        cached = int(dict(line.split() for line in stat)["inactive_file"])
        in_use = int((CGROUP / "memory.current").read_text(encoding="ascii"))
        if most < total:
            total, used = most, in_use - cached
    return total, used


def _limit(which: int) -> int | None:
    soft, _ = resource.getrlimit(which)
    return None if soft == resource.RLIM_INFINITY else soft


def _processes() -> int | None:
    """The lower of the user's limit and the container's."""
    limits = [_limit(resource.RLIMIT_NPROC)]
    with suppress(OSError, ValueError):
        limits.append(int((CGROUP / "pids.max").read_text(encoding="ascii")))
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
