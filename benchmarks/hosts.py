"""Three hosts on this machine and the real tools on them: `ray up`, `ray job submit`, `ray down`.

    python -m benchmarks.hosts     as root, with sshd, rsync and iproute2 installed

A host is a set of Linux namespaces: its own address, processes, name, /tmp, /dev/shm, /run, home
and sshd. All share one folder, as over NFS. They live inside such a set of their own, so that the
network of this machine is not touched and everything ends with one process.

configs/cluster/onprem.yaml is used as it is, but for addresses, key and size. The sweep's results
must be those of a sweep on one machine, byte for byte, although one worker host is cut off in the
middle; no job that was finished before may be trained again. Exit code 1 if anything is not so.
"""

from __future__ import annotations

import argparse
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
HOME = Path(pwd.getpwuid(0).pw_dir)
SHARED = Path("/mnt/shared")
HIDDEN = (Path("/mnt"), Path("/run"), HOME, Path("/tmp"))
"""What every host has for itself; /tmp last, because what is mounted may lie there."""

LAPTOP, HEAD, *WORKERS = "10.77.0.1", "10.77.0.2", "10.77.0.3", "10.77.0.4"
NAMESPACES = ("unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child",
              "--mount-proc")  # fmt: skip
WORDS = (
    "folds.count=2", "image.size=[32,24]", "model.name=test_efficientnet", "train.epochs=4",
    "train.lr=3e-3", "augment.name=flip", "resources.attempts=5", f"data.root={SHARED}/data",
    f"data.cache={SHARED}/cache",
)  # fmt: skip
RESULTS = ("submission.csv", "out_of_fold.parquet")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LIMIT_S = 400.0
"""Longest time of one step."""

# Each line of KEPT is a folder, a tab and where it is seen.
VIEW = """
set -euo pipefail
hostname "$NAME"
ip link set lo up
mount --bind "$FOLDER/hosts" /etc/hosts
mount --bind /dev/null /etc/resolv.conf
mount -t tmpfs tmpfs /dev/shm
for hidden in $HIDDEN; do
    mkdir -p "$FOLDER/view$hidden"
    mount -t tmpfs -o mode=755 tmpfs "$FOLDER/view$hidden"
    while IFS=$'\\t' read -r folder seen; do
        case "$seen" in "$hidden"/*)
            mkdir -p "$FOLDER/view$seen"
            mount --bind "$folder" "$FOLDER/view$seen";;
        esac
    done <<< "$KEPT"
    mount --rbind "$FOLDER/view$hidden" "$hidden"
done
chmod 1777 /tmp /dev/shm
cp /etc/skel/.bashrc ~ 2>/dev/null || touch ~/.bashrc
mkdir -p -m 700 ~/.ssh /run/sshd
"""
SERVE = """
ln -s "$PREFIX" ~/venv
cp "$ROOT/requirements.txt" ~/venv.txt
echo "$PUBLIC_KEY" > ~/.ssh/authorized_keys
ssh-keygen -q -t ed25519 -N '' -f /run/sshd/key
exec /usr/sbin/sshd -D -e -f /dev/null -h /run/sshd/key -o PermitRootLogin=yes -o UsePAM=no \
    -o PidFile=none
"""


class Failed(Exception):  # noqa: N818 -- the finding
    """Something was not as it should be."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    inside: Path | None = parser.parse_args().inside
    if inside:
        try:
            trial(inside)
        except (Failed, subprocess.TimeoutExpired) as error:
            sys.exit(f"hosts: {error}")
        return
    if os.geteuid() != 0:
        sys.exit("hosts: needs root, to make namespaces: sudo make hosts")
    tools = ("sshd", "ssh", "ssh-keygen", "rsync", "ip", "unshare")
    missing = [name for name in tools if not shutil.which(name, path=SYSTEM_PATH)]
    if missing:
        sys.exit(f"hosts: {', '.join(missing)} not found: "
                 "apt-get install openssh-server rsync iproute2 util-linux")  # fmt: skip
    if {ROOT, Path(sys.prefix)} & set(HIDDEN):
        sys.exit(f"hosts: move the repository out of {ROOT}: each host has that folder for itself")
    # So that whoever ends this program ends the hosts with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="hosts") as name:
        folder = Path(name)
        (folder / "shared").mkdir()
        (folder / "hosts").write_text(
            "127.0.0.1 localhost\n"
            + "".join(f"{ip} {host_name(ip)}\n" for ip in (LAPTOP, HEAD, *WORKERS))
        )
        laptop = subprocess.run(
            [*NAMESPACES, "--net", "bash", "-c",
             VIEW + 'exec "$PYTHON" -m benchmarks.hosts --inside "$FOLDER"'],
            cwd=ROOT,
            env=view_of(folder, LAPTOP, {folder: folder, folder / "shared": SHARED})
            | {"PYTHON": sys.executable},
        )  # fmt: skip
    sys.exit(laptop.returncode)


def host_name(address: str) -> str:
    return {LAPTOP: "laptop", HEAD: "head"}.get(address, f"worker{address[-1]}")


def view_of(folder: Path, address: str, kept: dict[Path, Path]) -> dict[str, str]:
    """The environment in which VIEW makes a host."""
    python = {path: path for path in (Path(sys.prefix), Path(sys.base_prefix), ROOT)}
    return {
        "PATH": f"{sys.prefix}/bin:{SYSTEM_PATH}",
        "HOME": str(HOME),
        "LANG": "C.UTF-8",
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
        "NAME": host_name(address),
        "FOLDER": str(folder),
        "HIDDEN": " ".join(map(str, HIDDEN)),
        "KEPT": "\n".join(f"{source}\t{seen}" for source, seen in {**python, **kept}.items()),
    }


def trial(folder: Path) -> None:
    """What happens on the laptop. Raises Failed where something is not as it should be."""
    sh("python", "-m", "examples.drawn_faces", f"{SHARED}/data", "--people", "42",
       "--eval-people", "6", "--height", "64", "--width", "48")  # fmt: skip
    sh("ray", "get-auth-token", "--generate")
    sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(HOME / ".ssh/key"))
    network()
    with told("a sweep on one machine"):
        sh("python", "-m", "ray_jobs.sweep", *WORDS, f"run.dir={SHARED}/alone")
    with hosts(folder) as running:
        config = write_config()
        try:
            on_the_cluster(config, running)
        except (Failed, subprocess.TimeoutExpired):
            print(logs(), file=sys.stderr)
            raise


def on_the_cluster(config: Path, running: dict[str, subprocess.Popen[bytes]]) -> None:
    with told("ray up"):
        sh("ray", "up", "--yes", "--no-config-cache", str(config))
    with told("both workers join"):
        until(lambda: len(nodes()) == 3, "a node on each host", every_s=5)
    with told("a full sweep as a job, one worker host cut off in the middle"):
        finished, lost = sweep(config, running)
    check(finished, lost)
    with told("ray down"):
        sh("ray", "down", "--yes", str(config))
        alive = [ip for ip in (HEAD, *WORKERS) if ip != lost]
        until(lambda: not any(ray_processes(ip) for ip in alive), "an end of Ray on every host")


def sweep(
    config: Path, running: dict[str, subprocess.Popen[bytes]]
) -> tuple[dict[Path, bytes], str]:
    """Submit the sweep; cut off the first worker host that has finished a job.

    Returns the jobs that were finished by then, with their reports, and the lost host.
    """
    run = SHARED / "run"
    with background("ray", "dashboard", str(config)):
        until(lambda: listens("127.0.0.1", 8265), "the dashboard through the tunnel")
        said = HOME / "job.log"
        with said.open("wb") as out:
            submit = subprocess.Popen(
                ["ray", "job", "submit", "--working-dir", ".", "--",
                 "python", "-m", "ray_jobs.sweep", *WORDS, f"run.dir={run}"],
                cwd=ROOT, stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip

        def victim() -> str | None:
            if submit.poll() is not None:
                raise Failed(f"the job ended early:\n{said.read_text()}")
            return next((ip for ip in map(node_of, reports(run)) if ip in WORKERS), None)

        lost = until(victim, "a job that a worker host has finished")
        finished = {path: path.read_bytes() for path in reports(run)}
        # The network first, as when a cable is pulled: nobody hears the host's processes end.
        sh("ip", "link", "set", host_name(lost), "down")
        running[lost].kill()
        if submit.wait(timeout=LIMIT_S) != 0:
            raise Failed(f"the job failed:\n{said.read_text()}")
    return finished, lost


def check(finished: dict[Path, bytes], lost: str) -> None:
    run = SHARED / "run"
    by_node: dict[str, int] = {}
    for path in reports(run):
        by_node[node_of(path)] = by_node.get(node_of(path), 0) + 1
    print(f"  {len(finished)} of {sum(by_node.values())} jobs were finished when {lost} was cut "
          f"off; jobs by host: {by_node}", flush=True)  # fmt: skip
    if not set(WORKERS) <= set(by_node):
        raise Failed("jobs did not land on both workers")
    log = (run / "run.log").read_text(encoding="utf-8")
    for path, before in finished.items():
        epochs = re.findall(rf" {path.parent.name}\s+epoch (\d+)/", log)
        if path.read_bytes() != before or len(epochs) != len(set(epochs)):
            raise Failed(f"{path.parent.name} was finished, and trained again")
    for name in RESULTS:
        if (run / name).read_bytes() != (SHARED / "alone" / name).read_bytes():
            raise Failed(f"{name} is not that of a sweep on one machine")
    print("  results: those of a sweep on one machine, byte for byte", flush=True)


def reports(run: Path) -> list[Path]:
    return sorted(run.glob("jobs/*/job.json"))


def node_of(report: Path) -> str:
    node: str = json.loads(report.read_text(encoding="utf-8"))["node"]
    return node


def write_config() -> Path:
    """The on-premises configuration of the repository, for these hosts."""
    config = yaml.safe_load((ROOT / "configs/cluster/onprem.yaml").read_text(encoding="utf-8"))
    config["provider"] |= {"head_ip": HEAD, "worker_ips": WORKERS}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(HOME / ".ssh/key")}
    size = "ray start --num-cpus=1 --object-store-memory=200000000"
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        config[commands] = [line.replace("ray start", size) for line in config[commands]]
    path = HOME / "onprem.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def network() -> None:
    """A bridge, and for each host a cable to it; all of it inside the laptop's namespace."""
    sh("ip", "link", "add", "bridge", "type", "bridge")
    sh("ip", "addr", "add", f"{LAPTOP}/24", "dev", "bridge")
    sh("ip", "link", "set", "bridge", "up")
    # Ray looks for the way to the internet to learn its own address; this one leads nowhere.
    sh("ip", "route", "add", "default", "dev", "bridge")
    for ip in (HEAD, *WORKERS):
        name = host_name(ip)
        sh("ip", "netns", "add", name)
        sh("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        sh("ip", "link", "set", name, "master", "bridge", "up")
        sh("ip", "-n", name, "addr", "add", f"{ip}/24", "dev", "eth0")
        sh("ip", "-n", name, "link", "set", "eth0", "up")
        sh("ip", "-n", name, "route", "add", "default", "via", LAPTOP)


@contextmanager
def hosts(folder: Path) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Start the hosts; killing one of these processes ends all that runs on that host."""
    running: dict[str, subprocess.Popen[bytes]] = {}
    for ip in (HEAD, *WORKERS):
        own = folder / host_name(ip)
        own.mkdir()
        shutil.copy(folder / "hosts", own / "hosts")
        environment = view_of(own, ip, {SHARED: SHARED}) | {
            "PREFIX": sys.prefix,
            "ROOT": str(ROOT),
            "PUBLIC_KEY": (HOME / ".ssh/key.pub").read_text(encoding="utf-8").strip(),
        }
        with (own / "sshd.log").open("wb") as log:
            running[ip] = subprocess.Popen(
                ["ip", "netns", "exec", host_name(ip), *NAMESPACES, "bash", "-c", VIEW + SERVE],
                env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
    try:
        for ip in running:
            until(partial(listens, ip, 22), f"sshd on {host_name(ip)}")
        yield running
    finally:
        for process in running.values():
            process.kill()
            process.wait()


def nodes() -> list[str]:
    """The addresses of the live nodes, as the head knows them."""
    code = (
        "import ray; ray.init(log_to_driver=False);"
        "print('NODES', *(node['NodeManagerAddress'] for node in ray.nodes() if node['Alive']))"
    )
    said = on(HEAD, f'RAY_AUTH_MODE=token ~/venv/bin/python -c "{code}"')
    found = re.search(r"NODES (.*)", said)
    return found[1].split() if found else []


def ray_processes(ip: str) -> list[str]:
    return re.findall(r"raylet|gcs_server|ray::\w+", on(ip, "ps -eo args"))


def logs() -> str:
    """What the autoscaler on the head and the workers' raylets said."""
    said = [on(HEAD, "tail -n 100 /tmp/ray/session_latest/logs/monitor.*")]
    said += [on(ip, "tail -n 30 /tmp/ray/session_latest/logs/raylet.*") for ip in WORKERS]
    return "\n".join(said)


def on(ip: str, command: str) -> str:
    """What a command says on a host; nothing where the host is not there."""
    done = subprocess.run(
        ["ssh", "-i", str(HOME / ".ssh/key"), "-o", "StrictHostKeyChecking=no",
         "-o", "ConnectTimeout=5", "-o", "LogLevel=ERROR", f"root@{ip}", command],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S,
    )  # fmt: skip
    return done.stdout + done.stderr


def sh(*words: str) -> None:
    """A command on the laptop. Raises Failed with what it said."""
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
        )
        try:
            status = str(process.wait(timeout=LIMIT_S))
        except subprocess.TimeoutExpired:
            process.kill()
            status = f"none after {LIMIT_S:g} s"
        if status != "0":
            said.seek(0)
            raise Failed(f"{' '.join(words)}: status {status}\n{said.read()}")


@contextmanager
def background(*words: str) -> Iterator[None]:
    process = subprocess.Popen(
        words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=LIMIT_S)


def until(seen: Callable[[], Any], what: str, every_s: float = 0.5) -> Any:
    """What ``seen`` returns as soon as that is something."""
    deadline = time.monotonic() + LIMIT_S
    while not (found := seen()):
        if time.monotonic() > deadline:
            raise Failed(f"there never was {what}")
        time.sleep(every_s)
    return found


def listens(ip: str, port: int) -> bool:
    try:
        socket.create_connection((ip, port), timeout=2).close()
    except OSError:
        return False
    return True


@contextmanager
def told(step: str) -> Iterator[None]:
    began = time.monotonic()
    print(f"{step} ...", flush=True)
    yield
    print(f"{step}: {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
