"""Folders on an object store and their local copies, against a server that speaks S3."""

import functools
import json
import signal
import sys
import threading
import time
import urllib.request

import boto3
import pytest

from maskcls.commands import check, eda, labels
from maskcls.config.load import ConfigError, load
from maskcls.storage import files, remote
from maskcls.storage.conditional import ConditionalObject
from maskcls.storage.place import Place
from maskcls.storage.remote import StorageError, Store
from ray_jobs import tune
from ray_jobs.cluster import nodes
from ray_jobs.run import lease
from ray_jobs.run.folder import claim
from tests.object_store import KEYS, Line, ObjectStore

LEASE = "run/.lease.json"
SECRET = KEYS["AWS_SECRET_ACCESS_KEY"]


@pytest.fixture(scope="module")
def server():
    """The server, for all tests of this file."""
    server = ObjectStore()
    yield server
    server.server.stop()


@pytest.fixture
def bucket(server, monkeypatch):
    """The server with an empty bucket, named by the environment; nothing waits for long."""
    for key in server.names():
        server.client.delete_object(Bucket="bucket", Key=key)
    server.requests.clear()
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(remote, "PAUSES_S", (0.01, 0.01))
    monkeypatch.setattr(remote, "SILENCE_S", 1.0)
    return server


@pytest.fixture
def line(bucket, monkeypatch):
    """A line to the server, taken by everything that is asked of it."""
    line = Line(bucket.port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", line.address)
    return line


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".pull.lock"
    }


def write(folder, **contents):
    for name, content in contents.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def test_what_is_pushed_here_is_pulled_there_and_nothing_travels_twice(
    bucket, tmp_path, monkeypatch
):
    monkeypatch.setattr(remote, "YOUNG_S", -60)
    here, there = (Place(tmp_path / name, "s3://bucket/run é") for name in ("here", "there"))
    write(here.local, a=b"one", empty=b"", deep__er__b=bytes(3_000_000))
    here.push()
    bucket.requests.clear()
    there.pull()
    assert files_of(there.local) == files_of(here.local)
    assert [bucket.requests["GET", f"run%20é/{name}"] for name in ("a", "deep/er/b")] == [1, 1]
    bucket.requests.clear()
    for place in (here, there):
        place.pull()
        place.push()
    assert not bucket.requests


def test_a_file_that_changed_is_noticed_though_size_and_second_are_the_same(bucket, tmp_path):
    here, there = (Place(tmp_path / name, "s3://bucket/run") for name in ("here", "there"))
    for content in (b"first", b"other", b"third"):
        write(here.local, state=content)
        here.push()
        assert bucket.get("run/state") == content
    there.pull()
    assert files_of(there.local) == {"state": b"third"}
    bucket.put("run/state", b"4444")
    there.fetch("state")
    assert files_of(there.local) == {"state": b"4444"}


def test_a_rewrite_on_the_store_of_equal_size_within_a_second_is_seen(
    bucket, tmp_path, monkeypatch
):
    second = int(time.time()) * 10**9
    monkeypatch.setattr(remote, "_state_of", lambda info: (info.size, second))
    place = Place(tmp_path, "s3://bucket/run")
    bucket.put("run/state", b"first")
    place.pull()
    bucket.put("run/state", b"other")
    place.push()
    assert bucket.get("run/state") == b"other"
    place.pull()
    assert files_of(tmp_path) == {"state": b"other"}


def test_a_file_that_is_replaced_while_it_is_sent_is_sent_again(bucket, tmp_path, monkeypatch):
    place = Place(tmp_path, "s3://bucket/run")
    write(tmp_path, state=b"first")
    send = Store._write

    def replaced_meanwhile(self, name, content):
        send(self, name, content)
        monkeypatch.setattr(Store, "_write", send)
        files.write_text(tmp_path / "state", "other")

    monkeypatch.setattr(Store, "_write", replaced_meanwhile)
    place.push()
    place.push()
    assert bucket.get("run/state") == b"other"


def test_the_store_is_the_truth(bucket, tmp_path):
    place = Place(tmp_path, "s3://bucket/run")
    write(tmp_path, keep=b"1", gone__a=b"2", heavy=b"3", _dot_lock=b"mine")
    place.push()
    assert sorted(bucket.names()) == ["run/gone/a", "run/heavy", "run/keep"]
    bucket.client.delete_object(Bucket="bucket", Key="run/gone/a")
    bucket.put("run/heavy", b"new and heavy")
    write(tmp_path, only_here=b"4")
    place.pull(lambda name: name != "heavy")
    assert files_of(tmp_path) == {"keep": b"1", ".lock": b"mine"}
    assert not (tmp_path / "gone").exists()


def test_the_last_files_come_last_and_only_they_are_removed(bucket, tmp_path, monkeypatch):
    sent = []
    send = Store.send
    monkeypatch.setattr(
        Store, "send", lambda self, path, name: (sent.append(name), send(self, path, name))
    )
    place = Place(tmp_path, "s3://bucket/job")
    write(tmp_path, job=b"1", resume=b"2", weights=b"3", zz=b"4")
    place.push(last=["resume", "job"])
    assert sent[2:] == ["resume", "job"]
    (tmp_path / "resume").unlink()
    (tmp_path / "zz").unlink()
    place.push(gone=["resume"])
    assert sorted(bucket.names()) == ["job/job", "job/weights", "job/zz"]


def test_a_key_that_leads_out_of_the_copy_is_not_followed(bucket, tmp_path):
    for key in ("run/../../evil", "run//evil", "run/.evil", "run/ok"):
        bucket.put(key, b"x")
    Place(tmp_path / "a" / "b", "s3://bucket/run").pull()
    assert set(files_of(tmp_path)) == {"a/b/ok"}


def test_a_line_that_breaks_in_the_middle_is_tried_again(bucket, line, tmp_path):
    content = bytes(range(256)) * 8000
    write(tmp_path / "here", big=content)
    line.breaks(3, after=500_000, answer=False)
    Place(tmp_path / "here", "s3://bucket/run").push()
    assert line.times < 3
    assert bucket.get("run/big") == content
    line.breaks(3, after=500_000)
    Place(tmp_path / "there", "s3://bucket/run").pull()
    assert line.times < 3
    assert files_of(tmp_path / "there") == {"big": content}


def test_a_line_that_falls_silent_in_the_middle_is_tried_again(bucket, line, tmp_path):
    content = bytes(range(256)) * 8000
    bucket.put("run/big", content)
    line.breaks(1, after=500_000, silent=True)
    Place(tmp_path, "s3://bucket/run").pull()
    assert line.times < 1
    assert files_of(tmp_path) == {"big": content}


def test_a_line_that_stays_broken_is_told_and_leaves_no_half_file(bucket, line, tmp_path):
    bucket.put("run/big", bytes(2_000_000))
    write(tmp_path / "here", big=bytes(range(256)) * 8000)
    line.breaks(10**9, after=500_000)
    there = Place(tmp_path / "there", "s3://bucket/run")
    told = r"s3://bucket/run/big: .*is the network up"
    with pytest.raises(StorageError, match=told):
        there.pull()
    assert files_of(there.local) == {}
    line.breaks(10**9, after=500_000, answer=False)
    with pytest.raises(StorageError, match=told):
        Place(tmp_path / "here", "s3://bucket/run").push()
    assert bucket.get("run/big") == bytes(2_000_000)


def test_a_line_that_stays_silent_is_told(bucket, line, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "PAUSES_S", ())
    line.breaks(10**9, silent=True)
    with pytest.raises(StorageError, match="is the network up"):
        Place(tmp_path, "s3://bucket/run").pull()


def test_a_server_that_is_not_there_is_told(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match="AWS_ENDPOINT_URL"):
        Place(tmp_path, "s3://bucket/run").pull()


def test_a_bucket_that_does_not_exist_is_named(bucket, tmp_path):
    place = Place(tmp_path, "s3://nobody/run")
    write(tmp_path, a=b"1")
    for do in (place.pull, place.push):
        with pytest.raises(StorageError, match="there is no bucket s3://nobody; create it"):
            do()


@pytest.fixture
def guarded(bucket):
    """The server asks for keys from here on; those of somebody who may do everything."""
    iam = boto3.client("iam", endpoint_url=bucket.address, region_name="us-east-1")
    iam.create_user(UserName="user")
    anything = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [anything]})
    iam.put_user_policy(UserName="user", PolicyName="all", PolicyDocument=policy)
    key = iam.create_access_key(UserName="user")["AccessKey"]

    def ask_after(requests):
        address = f"{bucket.address}/moto-api/reset-auth"
        kind = {"Content-Type": "text/plain"}
        told = urllib.request.Request(address, requests.encode(), kind, method="POST")
        urllib.request.urlopen(told).close()

    ask_after("0")
    yield key["AccessKeyId"], key["SecretAccessKey"]
    ask_after("inf")
    iam.delete_access_key(UserName="user", AccessKeyId=key["AccessKeyId"])
    iam.delete_user_policy(UserName="user", PolicyName="all")
    iam.delete_user(UserName="user")


def test_a_wrong_key_is_told_without_repeating_it(guarded, tmp_path, monkeypatch):
    write(tmp_path, a=b"1")
    place = Place(tmp_path, "s3://bucket/run")
    name, secret = guarded
    for wrong in ((name, SECRET), ("AKIANOBODY", secret)):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", wrong[0])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", wrong[1])
        lease_of = ConditionalObject("s3://bucket/run", ".lease.json")
        read = functools.partial(Store("s3://bucket/run").read, "a")
        for do in (place.pull, place.push, read, lease_of.read):
            with pytest.raises(StorageError, match="set AWS_ACCESS_KEY_ID") as caught:
                do()
            assert wrong[1] not in str(caught.value)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", name)
    place.push()


def test_a_folder_of_this_machine_has_nothing_to_do_with_a_store(tmp_path):
    write(tmp_path, a=b"1")
    place = Place(tmp_path) / "deeper"
    for do in (place.pull, place.push, lambda: place.fetch("a")):
        do()
    assert not place.local.exists()


def test_run_and_data_may_be_uris_and_their_copies_lie_in_the_cache(tmp_path):
    words = ["run.dir=s3://bucket/runs/full/", "data.root=gs://photos", f"data.cache={tmp_path}"]
    config = load(words=words).config
    run, root = config.place(config.run.dir), config.place(config.data.root)
    assert (run.uri, root.uri) == ("s3://bucket/runs/full", "gs://photos")
    assert (run / "jobs").uri == "s3://bucket/runs/full/jobs"
    assert (run.local.name, root.local.name) == ("full", "photos")
    assert {place.local.parents[1] for place in (run, root)} == {tmp_path / "remote"}
    (tmp_path / "again.yaml").write_text(config.yaml())
    assert load([tmp_path / "again.yaml"]).config == config


@pytest.mark.parametrize(
    "word",
    [
        "run.dir=s3://key:secret@bucket/run",
        "data.root=s3://bucket/data?secret_key=secret",
        "run.dir=http://bucket/run-secret",
        "run.dir=s3://bucket/../secret",
        "run.dir=s3://",
        "data.cache=s3://bucket/secret",
        "data.label_fixes=s3://bucket/secret.yaml",
    ],
)
def test_what_is_no_folder_is_refused_and_not_repeated(word):
    with pytest.raises(ConfigError, match=r"URI|path on this machine") as caught:
        load(words=[word])
    assert word.partition("=")[0] in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_number_in_a_file_is_no_folder(tmp_path):
    (tmp_path / "run.yaml").write_text("run: {dir: 3}")
    with pytest.raises(ConfigError, match=r"run\.dir.*"):
        load([tmp_path / "run.yaml"])


@pytest.fixture
def run_of(bucket, tmp_path, monkeypatch):
    """Claim the same run as a machine of its own; signs of life come fast."""
    monkeypatch.setattr(lease, "BEAT_S", 0.1)
    monkeypatch.setattr(lease, "SILENCE_S", 2.0)
    monkeypatch.setattr(lease, "WATCH_S", 0.3)

    def claimed(machine):
        words = ["run.dir=s3://bucket/run", f"data.cache={tmp_path / machine}"]
        config = load(words=words).config
        return claim(config, config.tasks)

    return claimed


def test_two_programs_never_work_in_one_run_of_a_store(bucket, run_of):
    with (
        run_of("one") as folder,
        pytest.raises(ValueError, match="s3://bucket/run: another program works in it"),
        run_of("two"),
    ):
        pass
    (folder.path / "scores.json").write_text("not sent")
    with run_of("two") as folder:
        (folder.path / "scores.json").write_text("sent at the end")
    assert bucket.get("run/scores.json") == b"sent at the end"
    assert bucket.get(LEASE) == lease.FREE
    with run_of("one") as folder:
        assert (folder.path / "scores.json").read_text() == "sent at the end"


def test_of_two_programs_that_start_at_once_one_gets_the_run(bucket, run_of):
    """Both look, find it free, and write: a store that only replaces objects lets both work."""
    together, outcomes = threading.Barrier(4), []

    def begin(machine):
        together.wait()
        try:
            with run_of(machine):
                outcomes.append("works")
                time.sleep(2.0)
        except ValueError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=begin, args=(str(n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("works") == 1
    assert all("works" in one for one in outcomes)  # or: another program works in it
    assert bucket.get(LEASE) == lease.FREE


def test_a_killed_owner_is_noticed(bucket, run_of, monkeypatch):
    with run_of("one") as folder:
        sign = bucket.get(LEASE)
        own = (folder.path / lease.FILE).read_bytes()
    bucket.put(LEASE, sign)
    with run_of("two"):
        assert bucket.get(LEASE) != sign
    # Who has the lock of the local copy that it worked in need not look for it.
    bucket.put(LEASE, sign)
    (folder.path / lease.FILE).write_bytes(own)
    monkeypatch.setattr(lease, "SILENCE_S", 10**9)
    with run_of("one"):
        assert bucket.get(LEASE) != sign


def test_status_tells_from_afar_whether_a_program_lives(bucket, run_of, tmp_path):
    far = Place(tmp_path / "far", "s3://bucket/run")
    with run_of("one") as folder:
        assert lease.liveness(far, time.time()) == "alive"
        assert lease.liveness(far, time.time() + 2 * lease.ALIVE_S) == "silent"
        assert lease.liveness(folder.place, time.time() + 2 * lease.ALIVE_S) == "alive"
        sign, own = bucket.get(LEASE), (folder.path / lease.FILE).read_bytes()
    assert lease.liveness(far, time.time()) == "gone"
    bucket.put(LEASE, sign)  # as a killed program leaves it
    (folder.path / lease.FILE).write_bytes(own)
    assert lease.liveness(folder.place, time.time()) == "gone"


def test_an_answer_that_was_lost_is_no_other_program(line):
    one = ConditionalObject("s3://bucket/run", ".lease.json")
    assert one.read() == b""
    line.breaks(1)  # the object arrives, the answer does not, and the client sends it again
    assert one.replace(b"mine")
    other = ConditionalObject("s3://bucket/run", ".lease.json")
    assert not other.replace(b"theirs")
    assert other.read() == b"mine"
    assert one.replace(b"mine again")
    assert not other.replace(b"theirs")


def test_a_bucket_that_is_not_there_is_named(bucket):
    with pytest.raises(StorageError, match="no bucket s3://nobody"):
        ConditionalObject("s3://nobody/run", ".lease.json").read()
    with pytest.raises(StorageError, match="no bucket s3://nobody"):
        ConditionalObject("s3://nobody/run", ".lease.json").replace(b"mine")


def test_who_was_taken_over_stops_and_sends_nothing(bucket, run_of):
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as cluster.connect does
    with pytest.raises(KeyboardInterrupt), run_of("one") as folder:
        (folder.path / "scores.json").write_text("mine")
        while True:  # a sign of life that crosses it on its way wins
            bucket.put(LEASE, b'{"id": "somebody else", "host": "h", "process": 1}')
            threading.Event().wait(0.3)
    signal.signal(signal.SIGTERM, before)
    assert "run/scores.json" not in bucket.names()
    assert b"somebody else" in bucket.get(LEASE)


def test_results_are_sent_also_when_the_run_fails(bucket, run_of):
    with pytest.raises(RuntimeError, match="why"), run_of("one") as folder:
        (folder.path / "scores.json").write_text("{}")
        (folder.path / "jobs" / "age-fold0").mkdir(parents=True)
        (folder.path / "jobs" / "age-fold0" / "resume.pt").write_text("a worker's own")
        raise RuntimeError("why")
    assert sorted(bucket.names("run/")) == [LEASE, "run/config.yaml", "run/scores.json"]


def test_a_node_that_does_not_reach_the_store_says_why(bucket, monkeypatch):
    assert nodes.why_blind("s3://bucket/run") is None
    assert "no bucket s3://nobody" in nodes.why_blind("s3://nobody/run")


def test_a_search_on_a_store_is_refused(monkeypatch, capsys):
    words = ["tune", "task=age", "tune.space={train.lr: [1e-3]}", "run.dir=s3://bucket/search"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit):
        tune.main()
    assert "run.dir=s3://bucket/search: a search lives in a folder" in capsys.readouterr().err


@pytest.mark.parametrize("command", [check, eda, labels])
def test_commands_that_need_a_folder_say_so(command, capsys):
    with pytest.raises(SystemExit):
        command.main(["s3://bucket/data", "--out", "x"])
    assert "s3://bucket/data is no folder of this machine" in capsys.readouterr().err
