"""Where the photos of a configuration lie: folders or tables, here or on an object store."""

from __future__ import annotations

import os.path
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from maskcls.config.schema import Config
from maskcls.data import manifest, table
from maskcls.data.source import Source
from maskcls.data.table import Parsed, Tables
from maskcls.progress import Progress
from maskcls.storage.place import Place


@dataclass(frozen=True)
class Opened:
    """A source, and the folders on object stores that its photos are fetched from."""

    source: Source
    places: tuple[Place, ...] = ()


def check(config: Config) -> None:
    """Refuse a folder of this machine that holds no photos, before anything starts.

    Raises FileNotFoundError.
    """
    root = config.place(config.data.root)
    folder = root.local / "train" / "images"
    if config.data.table is not None or root.uri or folder.is_dir():
        return
    otherwise = "; name your folder by data.root=PHOTOS, or a table by data.table=FILE"
    raise FileNotFoundError(manifest.no_such(folder, otherwise))


def opened(config: Config) -> Opened:
    """The source that ``config`` names. Tables, and the photos in them, are fetched if they lie on
    an object store; those in the competition's folders are not yet.

    Raises what ``table.parse`` raises, and StorageError.
    """
    root = config.place(config.data.root)
    limits = config.labels.age_limits
    if config.data.table is None:
        source = Source(root.local, variants=config.data.variants, age_limits=limits)
        return Opened(source, (root,) if root.uri else ())
    found = [_fetched(config, location) for location in config.data.table]
    tables = Tables(
        tuple(path for path, _ in found), config.data.columns, config.data.values, limits
    )
    parsed = table.parse(tables)
    below = {place: {path.name} for path, place in found if place}
    by_uri = {prefix: config.place(prefix) for prefix in _folders(table.uris(parsed))}
    wanted: defaultdict[Place, set[str]] = defaultdict(set, below)
    for prefix, place in by_uri.items():
        wanted[place] |= {uri.removeprefix(f"{prefix}/") for uri in table.uris(parsed)}
    relative = _relative(parsed)
    if relative and root.uri:
        wanted[root] |= relative
    elif relative:
        for place in below:
            wanted[place] |= relative
    for place, names in wanted.items():
        place.pull(names.__contains__, Progress("photos of the table fetched"))
    stores = {prefix: place.local for prefix, place in by_uri.items()}
    return Opened(Source(root.local, tables, parsed, stores, age_limits=limits), tuple(wanted))


def _fetched(config: Config, location: Path | str) -> tuple[Path, Place | None]:
    """A table on this machine, and the folder on a store that it comes from."""
    if isinstance(location, Path):
        return location, None
    folder, name = location.rsplit("/", 1)
    place = config.place(folder)
    place.fetch(name)
    return place.local / name, place


def _relative(parsed: Parsed) -> set[str]:
    locations = parsed.rows["location"]
    kept = ~locations.str.startswith("/") & ~locations.str.contains("://", regex=False)
    return set(locations[kept])


def _folders(uris: Iterable[str]) -> list[str]:
    """The longest folder that all URIs of a bucket lie in, for each bucket."""
    buckets: defaultdict[str, set[str]] = defaultdict(set)
    for uri in uris:
        scheme, _, rest = uri.partition("://")
        bucket, _, name = rest.partition("/")
        buckets[f"{scheme}://{bucket}"].add(str(PurePosixPath(f"/{name}").parent))
    return [bucket + os.path.commonpath(folders).rstrip("/") for bucket, folders in buckets.items()]
