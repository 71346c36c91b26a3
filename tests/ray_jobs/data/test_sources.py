"""Tables and their photos on an object store, and nodes that fetch the photos for themselves."""

import shutil
from pathlib import Path

import pytest

from maskcls.config.load import load
from ray_jobs.data import sources
from ray_jobs.data.source import names_below
from tests.object_store import ObjectStore


@pytest.fixture(scope="module")
def server():
    server = ObjectStore()
    yield server
    server.server.stop()


@pytest.fixture
def bucket(server, monkeypatch):
    for key in server.names():
        server.client.delete_object(Bucket="bucket", Key=key)
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    for key in ("set/x/a.jpg", "set/x/b.jpg", "set/unused.jpg", "other/deep/c.jpg"):
        server.put(key, key.encode())
    return server


def photos_of(tmp_path, *words):
    config = load([], [f"data.cache={tmp_path / 'cache'}", *words]).config
    opened = sources.opened(config)
    return opened, opened.source.train().photos


def test_a_table_on_a_store_has_paths_from_its_folder_and_uris(bucket, tmp_path):
    bucket.put("set/photos.csv", b"path,mask\nx/a.jpg,worn\ns3://bucket/other/deep/c.jpg,worn\n")
    opened, photos = photos_of(tmp_path, "data.table=s3://bucket/set/photos.csv")
    assert photos["status"].tolist() == ["ok", "ok"]
    assert photos["key"].tolist() == ["s3://bucket/other/deep/c.jpg", "x/a.jpg"]
    contents = [Path(path).read_text() for path in photos["path"]]
    assert contents == ["other/deep/c.jpg", "set/x/a.jpg"]
    assert not any("unused" in str(path) for path in tmp_path.rglob("*.jpg"))  # not asked for

    # Another node has the table of the run alone, and fetches from the same places.
    shutil.rmtree(tmp_path / "cache")
    for place in opened.places:
        place.pull(names_below(photos["path"], place.local).__contains__)
    assert [Path(path).read_text() for path in photos["path"]] == contents


def test_a_table_here_has_paths_from_a_root_on_a_store(bucket, tmp_path):
    (tmp_path / "photos.csv").write_text("path\nx/a.jpg\nx/b.jpg\n")
    words = (f"data.table={tmp_path / 'photos.csv'}", "data.root=s3://bucket/set")
    opened, photos = photos_of(tmp_path, *words)
    assert photos["status"].tolist() == ["ok", "ok"]
    assert photos["key"].tolist() == ["x/a.jpg", "x/b.jpg"]
    assert [place.uri for place in opened.places] == ["s3://bucket/set"]


def test_a_photo_that_is_not_on_the_store_is_told(bucket, tmp_path):
    bucket.put("set/photos.csv", b"path\nx/a.jpg\nx/z.jpg\n")
    _, photos = photos_of(tmp_path, "data.table=s3://bucket/set/photos.csv")
    assert photos["status"].tolist() == ["ok", "missing file"]


def test_the_folder_of_each_bucket_is_the_longest_that_holds_all():
    uris = ["s3://a/x/1.jpg", "s3://a/x/y/2.jpg", "gs://b/3.jpg"]
    assert sources._folders(uris) == ["s3://a/x", "gs://b"]


def test_a_folder_without_photos_is_refused_before_anything_starts(tmp_path):
    (tmp_path / "set" / "train" / "images").mkdir(parents=True)
    sources.check(load([], [f"data.root={tmp_path / 'set'}"]).config)
    sources.check(load([], ["data.root=s3://bucket/set"]).config)  # fetched later
    inside = load([], [f"data.root={tmp_path / 'set' / 'train'}"]).config
    with pytest.raises(FileNotFoundError, match=f"did you mean {tmp_path / 'set'}[?]"):
        sources.check(inside)
    nowhere = load([], [f"data.root={tmp_path / 'nowhere'}"]).config
    with pytest.raises(FileNotFoundError, match=r"train/images: no such folder.*data.table=FILE"):
        sources.check(nowhere)
