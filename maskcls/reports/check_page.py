"""The page of `maskcls check`: findings by kind, with thumbnails of what they are about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final

from maskcls.data.label_fixes import STEMS
from maskcls.data.manifest import OK
from maskcls.reports import page
from maskcls.reports.thumbnails import thumbnail

if TYPE_CHECKING:
    from maskcls.quality.findings import Checked, Finding, Kind

    Photos = Mapping[str, Mapping[str, str]]


SHOWN: Final = 30
"""Findings of a kind on the page; findings.csv has them all."""

PHOTOS: Final = 14
"""Photos of a finding on the page."""

_ORDER: Final = {stem: place for place, stem in enumerate(STEMS)}


def render(checked: Checked, kinds: Mapping[str, Kind]) -> str:
    """The whole page. Photos that it shows are decoded again, at a small size."""
    by_kind = {
        kind: [finding for finding in checked.findings if finding.kind == kind] for kind in kinds
    }
    found = {kind: findings for kind, findings in by_kind.items() if findings}
    photos: Photos = checked.photos.set_index("key").to_dict("index")  # type: ignore[assignment]
    body = [
        _header(checked),
        _verdict(checked),
        _summary(found, kinds) if found else "<p>Nothing was found.</p>",
        *(_section(kind, kinds[kind], findings, photos) for kind, findings in found.items()),
        f"<footer>{escape(FOOTER)}</footer>",
    ]
    title = f"Check of {checked.name}"
    return page.PAGE.format(title=escape(title), css=page.CSS + CSS, body="\n".join(body))


def _header(checked: Checked) -> str:
    sides = checked.photos["side"].value_counts()
    people = checked.photos.loc[checked.photos["side"] == "train", "person"].nunique()
    facts = [
        f"{people:,} people",
        f"{sides.get('train', 0):,} photos to train on",
        f"{sides.get('eval', 0):,} to predict",
    ]
    return f"<header><h1>{escape(checked.name)}</h1><p>{' · '.join(facts)}</p></header>"


def _verdict(checked: Checked) -> str:
    if checked.would_stop:
        return '<p class="verdict stops"><b>A run would stop.</b> The errors below say why.</p>'
    return '<p class="verdict"><b>Nothing here would stop a run.</b></p>'


def _summary(found: Mapping[str, Sequence[Finding]], kinds: Mapping[str, Kind]) -> str:
    rows = [
        f'<th scope="row"><a href="#{page.anchor(kind)}">{escape(kinds[kind].title)}</a></th>'
        f"<td>{_badge(kinds[kind])}</td><td>{len(findings):,}</td>"
        for kind, findings in found.items()
    ]
    head = '<th scope="col">what</th><th scope="col">level</th><th scope="col">findings</th>'
    return f'<nav aria-label="Findings"><table>{page.table_rows(head, rows)}</table></nav>'


def _section(kind: str, about: Kind, findings: Sequence[Finding], photos: Photos) -> str:
    items = "".join(f"<li>{_item(finding, photos)}</li>" for finding in findings[:SHOWN])
    more = len(findings) - SHOWN
    rest = f"<p>and {more:,} more, see findings.csv</p>" if more > 0 else ""
    pictured = " pictured" if any(finding.photos for finding in findings) else ""
    return (
        f'<section id="{page.anchor(kind)}"><h2>{escape(about.title)} {_badge(about)}</h2>'
        f'<p>{about.meaning}</p><ul class="findings{pictured}">{items}</ul>{rest}</section>'
    )


def _item(finding: Finding, photos: Photos) -> str:
    named = ", ".join(finding.people[:PHOTOS]) + (" …" if len(finding.people) > PHOTOS else "")
    who = f"<b>{escape(named)}</b> " if named else ""
    text = f"<p>{who}{escape(finding.message)}</p>"
    if not finding.photos:
        return text
    keys = list(finding.photos)
    if all(photos[key]["status"] != OK for key in keys):
        return text + "".join(f"<p><code>{escape(key)}</code></p>" for key in keys)
    if finding.kind == "another person":  # The others are what it is unlike.
        mine = [key for key in photos if photos[key]["person"] == finding.people[0]]
        keys = sorted(mine, key=lambda key: (_ORDER[photos[key]["stem"]], key))
    odd = set(finding.photos) if len(keys) > len(finding.photos) else set()
    shown = "".join(
        _figure(key, photos[key], key in odd, len(finding.people) > 1) for key in keys[:PHOTOS]
    )
    more = f"<p>and {len(keys) - PHOTOS:,} more photos</p>" if len(keys) > PHOTOS else ""
    return f'{text}<div class="photos">{shown}</div>{more}'


def _figure(key: str, photo: Mapping[str, str], odd: bool, whose: bool) -> str:
    name, person = Path(key).stem.replace("_", " "), photo["person"]
    said = f"<b>{escape(person)}</b> " if whose and person else ""
    mark = ' class="odd"' if odd else ""
    picture = thumbnail(photo["path"], f"{person} {name}".strip(), 112)
    return (
        f'<figure{mark} title="{escape(key)}">{picture}'
        f"<figcaption>{said}{escape(name)}</figcaption></figure>"
    )


def _badge(kind: Kind) -> str:
    return f'<span class="badge {kind.level}">{kind.level}</span>'


FOOTER: Final = "findings.csv beside this page lists every finding with the paths of its photos."

CSS: Final = """
.verdict { background: #ecfdf5; border-left: 4px solid #059669; padding: 10px 14px;
           color: #1f2937; margin: 16px 0; }
.stops { background: #fef2f2; border-color: #dc2626; }
.badge { border-radius: 9px; font-size: 12px; font-weight: 400; padding: 1px 8px; }
.badge.error { background: #fee2e2; color: #991b1b; }
.badge.warning { background: #fef3c7; color: #92400e; }
.findings { list-style: none; margin: 0; padding: 0; }
.findings li { border-top: 1px solid #e5e7eb; padding: 5px 0; }
.findings p { color: #1f2937; margin: 2px 0; overflow-wrap: anywhere; }
.pictured { display: flex; flex-wrap: wrap; gap: 10px; }
.pictured li { background: #fff; border: 1px solid #e5e7eb; border-radius: 8px;
               box-sizing: border-box; max-width: 100%; min-width: 0; padding: 8px 12px; }
.photos { display: flex; flex-wrap: wrap; gap: 6px; }
.photos figure { margin: 0; width: 70px; }
.photos img, .photos .none { border-radius: 4px; box-sizing: border-box; display: block;
                             height: 94px; object-fit: contain; width: 70px; }
.photos .none { background: #f1f5f9; color: #4b5563; font-size: 11px; text-align: center; }
.photos figcaption { color: #4b5563; font-size: 11px; line-height: 1.25; overflow: hidden;
                     text-overflow: ellipsis; }
.photos .odd img { border: 3px solid #dc2626; }
.photos .odd figcaption { color: #991b1b; font-weight: 600; }
nav table { box-sizing: border-box; max-width: 100%; }
nav th { white-space: normal; }
code { overflow-wrap: anywhere; }
"""
