"""The photos that a command is about, as its arguments name them."""

from __future__ import annotations

import argparse
from pathlib import Path

from maskcls.config.arguments import of_type
from maskcls.config.photo_tables import ColumnNames, Values
from maskcls.config.recipe import Labels
from maskcls.data.source import Source
from maskcls.data.table import Tables
from maskcls.storage import yaml_files
from maskcls.storage.uri import on_this_machine


def add(parser: argparse.ArgumentParser) -> None:
    """Arguments for a data root or a table, and for how to read that."""
    parser.add_argument(
        "data",
        type=on_this_machine,
        metavar="DATA",
        help="a folder that holds train/ and eval/, or a table of photos (.csv, .parquet)",
    )
    parser.add_argument(
        "--root", type=on_this_machine, metavar="FOLDER",
        help="for a table: what its paths are relative to, as data.root",
    )  # fmt: skip
    parser.add_argument(
        "--columns", type=of_type(ColumnNames, yaml_files.parse), default={}, metavar="YAML",
        help="for a table: data.columns, as in '{mask: wearing}'",
    )  # fmt: skip
    parser.add_argument(
        "--values", type=of_type(Values, yaml_files.parse), default={}, metavar="YAML",
        help="for a table: data.values, as in '{gender: {F: female}}'",
    )  # fmt: skip
    parser.add_argument(
        "--age-limits", type=int, nargs=2, default=Labels().age_limits, metavar="YEARS",
        help="labels.age_limits",
    )  # fmt: skip


def source(
    arguments: argparse.Namespace, variants: tuple[str, ...] | list[str] = ("original",)
) -> Source:
    """What the arguments of ``add`` name. Raises ValueError for limits that do not rise."""
    limits = Labels(age_limits=tuple(arguments.age_limits)).age_limits
    data: Path = arguments.data
    if not data.is_file():
        return Source(data, variants=variants, age_limits=limits)
    tables = Tables((data,), arguments.columns, arguments.values, limits)
    return Source(arguments.root or data.absolute().parent, tables, age_limits=limits)
