"""The page of `maskcls labels`: look, accept or reject, take the label fixes along.

Decisions stay in the browser's storage, under the run's identity.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from maskcls.data.label_fixes import STEMS
from maskcls.labels import AGE_BAND_STARTS, age_band, class_names
from maskcls.reports import page
from maskcls.reports.thumbnails import thumbnail

if TYPE_CHECKING:
    from maskcls.quality.label_errors import Suspects


KEYS: Final = {
    "j↓": "next",
    "k↑": "back",
    "a": "accept the likely label",
    "r": "reject it",
    "u": "undo",
}

_FROM_BARE_FACE: Final = {stem: place for place, stem in enumerate(reversed(STEMS))}


def render(suspects: Suspects, top: int) -> str:
    """The whole page, with the first ``top`` labels of each task."""
    shown = suspects.table[suspects.table["rank"] <= top]
    # A fix is about a stem: of a photo and its cut-out copy, the likelier error stands for both.
    stem = shown["photo"].map(suspects.photos.set_index("key")["stem"]).fillna("")
    shown = shown[~shown.assign(stem=stem).duplicated(["task", "person", "stem"])]
    albums = {
        str(person): rows.sort_values("stem", key=lambda stems: stems.map(_FROM_BARE_FACE))
        for person, rows in suspects.photos[
            suspects.photos["person"].isin(shown["person"])
        ].groupby("person")
    }
    years = _usual_years(suspects.photos)
    items = [_item(row, albums[row["person"]], years) for row in shown.to_dict("records")]
    data = {
        "run": suspects.name,
        "identity": suspects.identity,
        "fixes": suspects.fixes.model_dump(),
    }
    body = [
        f"<header><h1>Likely label errors of {escape(suspects.name)}</h1>"
        f"<p>{NOTE}</p>{_facts(suspects, top)}</header>",
        _toolbar(list(shown["task"].unique())),
        f'<main><ol id="items">{"".join(items)}</ol>'
        '<p id="none" hidden>Nothing to show.</p></main>',
        EXPORT,
        f'<script type="application/json" id="data">{_json(data)}</script>',
        f"<script>{SCRIPT}</script>",
    ]
    title = f"Label errors of {suspects.name}"
    return page.PAGE.format(title=escape(title), css=page.CSS + CSS, body="\n".join(body))


def _json(data: Mapping[str, Any]) -> str:
    """JSON that a script element can hold: a name with "</script>" must not end it."""
    return json.dumps(data).replace("<", "\\u003c")


def _usual_years(photos: pd.DataFrame) -> dict[str, int]:
    """The median age in years of the people of each band; its first year where there are none."""
    ages = photos.drop_duplicates("person")["age"]
    medians = ages.groupby(age_band(ages)).median()
    usual = dict(enumerate((0, *AGE_BAND_STARTS))) | medians.to_dict()
    return {name: int(usual[band]) for band, name in enumerate(class_names("age"))}


def _facts(suspects: Suspects, top: int) -> str:
    lines = []
    for task, rows in suspects.table.groupby("task", sort=False):
        what = "photos" if rows["photo"].any() else "people"
        agreed = ((rows["score"] >= rows["likely_probability"]) & ~rows["flagged"]).mean()
        lines.append(
            f"<li><b>{task}</b>: {min(top, len(rows)):,} of {len(rows):,} {what}; models agree "
            f"with {100 * agreed:.0f}&nbsp;% of the labels and are confident of another one for "
            f"{rows['flagged'].sum():,}</li>"
        )
    return f"<ul>{''.join(lines)}</ul>"


def _toolbar(tasks: list[str]) -> str:
    choices = "".join(
        f'<label><input type="radio" name="task" value="{value}"{checked}> {name}'
        f' <span class="count" data-count="{value}"></span></label>'
        for value, name, checked in [("", "all", " checked"), *((t, t, "") for t in tasks)]
    )
    keys = "".join(f"<span>{_kbd(pressed)} {meaning}</span>" for pressed, meaning in KEYS.items())
    return (
        '<div id="toolbar" role="region" aria-label="What to show">'
        f"<fieldset><legend>Task</legend>{choices}</fieldset>"
        '<label><input type="checkbox" id="open"> undecided only</label>'
        '<output id="progress"></output>'
        '<a class="button" href="#export">Export</a>'
        f'<p class="keys">{keys}</p></div>'
    )


def _kbd(keys: str) -> str:
    return " ".join(f"<kbd>{key}</kbd>" for key in keys)


def _item(row: Mapping[Any, Any], album: pd.DataFrame, years: Mapping[str, int]) -> str:
    task, person, key = row["task"], row["person"], row["photo"]
    photos = album[album["key"] == key] if key else album
    stem = str(photos["stem"].iloc[0]) if key else ""
    pictures = "".join(
        thumbnail(path, f"{person} {photo.replace('_', ' ')}", 224 if key else 112)
        for path, photo in zip(photos["path"], photos["stem"], strict=True)
    )
    age = ""
    if task == "age":
        age = (
            f'<label>age in years <input type="number" min="0" max="119" required '
            f'value="{years[row["likely"]]}"></label>'
        )
    name = f"{person} {stem.replace('_', ' ')}".strip()
    flag = '<span class="flag">models are confident</span>' if row["flagged"] else ""
    fixed = f"<p>label fix before: {escape(row['fix'])}</p>" if row["fix"] else ""
    return (
        f'<li tabindex="-1" data-task="{task}" data-person="{escape(person)}" '
        f'data-stem="{stem}" data-likely="{row["likely"]}"'
        f"{' data-flipped' if 'gender flipped' in row['fix'] else ''}>"
        f'<div class="{"one" if key else "seven"}">{pictures}</div>'
        f'<div class="said"><h2><span class="task">{task} {row["rank"]}</span> {escape(name)} '
        f"{flag}</h2>"
        f"<p>given <b>{_words(row['given'])}</b> {_percent(row['score'])} · "
        f"likely <b>{_words(row['likely'])}</b> {_percent(row['likely_probability'])}</p>"
        f"{fixed}<p class='do'>"
        f'<button type="button" data-do="accepted" aria-pressed="false">Accept '
        f"{_words(row['likely'])}</button>"
        '<button type="button" data-do="rejected" aria-pressed="false">Reject</button>'
        f"{age}</p></div></li>"
    )


def _words(name: str) -> str:
    return name.replace("_", " ")


def _percent(share: float) -> str:
    return f'<span class="share">({100 * share:.1f}&nbsp;%)</span>'


NOTE: Final = (
    "The most doubtful labels, by the probability that models which never saw the person give to "
    "the label. The weaker the models, the more of them are right as they are: look. "
    "label_errors.csv has all."
)

EXPORT: Final = """<section id="export"><h2>Label fixes</h2>
<p>What was accepted, together with the label fixes that the run was made with. Save it as a file
and train again with <code>data.label_fixes=FILE</code> and another <code>run.dir</code>.</p>
<textarea id="yaml" readonly rows="12" spellcheck="false" aria-label="Label fixes as YAML"
></textarea>
<p class="do"><a class="button" id="download" download="label_fixes.yaml">Download</a>
<button type="button" id="copy">Copy</button> <output id="told"></output></p></section>"""

CSS: Final = """
#toolbar { align-items: center; background: #f8fafc; border-bottom: 1px solid #e5e7eb;
           display: flex; flex-wrap: wrap; gap: 6px 18px; padding: 8px 0; position: sticky;
           top: 0; z-index: 1; }
#toolbar fieldset { border: 0; display: flex; flex-wrap: wrap; gap: 4px 14px; margin: 0;
                    padding: 0; }
#toolbar legend { float: left; margin-right: 12px; }
.count { color: #5b6472; }
header ul { margin: 0; padding-left: 20px; }
.keys { display: flex; flex-basis: 100%; flex-wrap: wrap; font-size: 12px; gap: 4px 16px;
        margin: 0; }
kbd { background: #fff; border: 1px solid #cbd5e1; border-radius: 4px; padding: 0 5px; }
#items { display: grid; gap: 8px; list-style: none; margin: 12px 0; padding: 0;
         grid-template-columns: repeat(auto-fill, minmax(min(100%, 500px), 1fr)); }
#items li { background: #fff; border: 1px solid #e5e7eb; border-left: 6px solid #cbd5e1;
            border-radius: 8px; display: flex; flex-wrap: wrap; gap: 10px 20px; min-width: 0;
            padding: 10px 14px; scroll-margin: 110px 0 20px; }
#items li:has(.seven) { grid-column: 1 / -1; }
#items li[hidden] { display: none; }
#items li:focus { outline: none; }
#items li.current { outline: 3px solid #2563eb; }
#items li.accepted { border-left-color: #059669; }
#items li.rejected { border-left-color: #dc2626; }
#items h2 { align-items: baseline; display: flex; flex-wrap: wrap; font-size: 15px; gap: 8px; }
.task { color: #5b6472; font-weight: 400; }
.flag { background: #fef3c7; border-radius: 9px; color: #92400e; font-size: 12px;
        font-weight: 400; padding: 0 8px; }
.seven, .one { display: flex; flex-wrap: wrap; gap: 4px; }
.seven img, .one img { border-radius: 4px; box-sizing: border-box; object-fit: contain; }
.seven img { height: 112px; width: 84px; }
.one img { height: 224px; width: 168px; }
.said { flex: 1; min-width: 240px; }
.said p { color: #1f2937; margin: 6px 0; }
.share { color: #5b6472; }
.do { align-items: center; display: flex; flex-wrap: wrap; gap: 8px; }
.do input { font: inherit; width: 60px; }
button, .button { background: #fff; border: 1px solid #94a3b8; border-radius: 6px;
                  color: #1f2937; cursor: pointer; font: inherit; padding: 3px 12px;
                  text-decoration: none; }
button:hover, .button:hover { background: #f1f5f9; }
button:focus-visible, .button:focus-visible, input:focus-visible, textarea:focus-visible {
  outline: 2px solid #2563eb; outline-offset: 1px; }
[data-do=accepted][aria-pressed=true] { background: #047857; border-color: #047857;
                                        color: #fff; }
[data-do=rejected][aria-pressed=true] { background: #b91c1c; border-color: #b91c1c;
                                        color: #fff; }
textarea { box-sizing: border-box; font: 13px/1.4 ui-monospace, monospace; width: 100%; }
#export { scroll-margin-top: 110px; }
@media (pointer: coarse) { button, .button { padding: 8px 18px; } }
@media (max-width: 700px) {
  #toolbar { position: static; }
  .keys { display: none; }
}
"""

SCRIPT: Final = r"""
"use strict";
const { run, identity, fixes } = JSON.parse(document.getElementById("data").textContent);
const KEY = "maskcls-label-errors-" + identity;
const byId = id => document.getElementById(id);
const items = [...document.querySelectorAll("#items > li")];
const nameOf = item => [item.dataset.task, item.dataset.person, item.dataset.stem].join(" ");
const yearsOf = item => item.querySelector("input[type=number]");
let decisions = {};  // name of an item -> { verdict, years }
let current = null;

try { decisions = JSON.parse(localStorage.getItem(KEY)) || {}; } catch (error) { keepFailed(); }

function keepFailed() {
  byId("told").textContent = "This browser keeps no decisions: export before you leave.";
}

function keep() {
  try { localStorage.setItem(KEY, JSON.stringify(decisions)); } catch (error) { keepFailed(); }
}

function decide(item, verdict) {
  if (verdict === "accepted" && yearsOf(item) && !yearsOf(item).reportValidity()) return false;
  if (verdict) decisions[nameOf(item)] = { verdict, years: yearsOf(item)?.valueAsNumber };
  else delete decisions[nameOf(item)];
  keep();
  show();
  return true;
}

function shown(item) {
  const task = document.querySelector("input[name=task]:checked").value;
  const decided = nameOf(item) in decisions;
  // The one in hand stays until it is left, or it would vanish under the reader's eyes.
  return (!task || item.dataset.task === task)
    && !(byId("open").checked && decided && item !== current);
}

function select(item, focus = true) {
  current?.classList.remove("current");
  current = item;
  show();
  if (!item) return;
  item.classList.add("current");
  if (focus) item.focus({ preventScroll: true });
  item.scrollIntoView({ block: "nearest" });
}

function move(step) {
  const visible = items.filter(shown);
  const at = visible.indexOf(current);
  const next = at < 0 ? 0 : at + step;
  if (visible[next]) select(visible[next]);
}

function show() {
  const verdicts = { accepted: 0, rejected: 0 };
  const open = {};
  for (const item of items) {
    const verdict = decisions[nameOf(item)]?.verdict;
    item.hidden = !shown(item);
    for (const name of ["accepted", "rejected"]) item.classList.toggle(name, verdict === name);
    for (const button of item.querySelectorAll("button"))
      button.setAttribute("aria-pressed", button.dataset.do === verdict);
    if (verdict) verdicts[verdict] += 1;
    else for (const task of ["", item.dataset.task]) open[task] = (open[task] || 0) + 1;
  }
  for (const count of document.querySelectorAll("[data-count]"))
    count.textContent = open[count.dataset.count] || 0;
  byId("progress").textContent =
    `${verdicts.accepted} accepted, ${verdicts.rejected} rejected, ${open[""] || 0} undecided`;
  byId("none").hidden = items.some(item => !item.hidden);
  const text = yaml(merged());
  byId("yaml").value = text;
  byId("download").href = "data:text/yaml;charset=utf-8," + encodeURIComponent(text);
}

// The run's own label fixes with what was accepted.
function merged() {
  const all = structuredClone(fixes);
  for (const item of items) {
    const decision = decisions[nameOf(item)];
    if (decision?.verdict !== "accepted") continue;
    const { task, person, stem, likely } = item.dataset;
    if (task === "age") all.set_age[person] = decision.years;
    else if (task === "mask") (all.set_mask[person] ??= {})[stem] = likely;
    else {
      // The given gender is that after the fixes of the run: a second flip undoes the first.
      all.flip_gender = all.flip_gender.filter(other => other !== person);
      if (!("flipped" in item.dataset)) all.flip_gender.push(person);
    }
  }
  return all;
}

function yaml(all) {
  const lines = ["# Label fixes of the run " + JSON.stringify(run) + " and those accepted since."];
  for (const [key, value] of Object.entries(all)) {
    if (Array.isArray(value)) {
      if (value.length) lines.push(`${key}:`, ...value.map(id => `  - ${JSON.stringify(id)}`));
    } else if (Object.keys(value).length) {
      lines.push(`${key}:`);
      for (const id of Object.keys(value).sort())
        lines.push(`  ${JSON.stringify(id)}: ${flow(value[id])}`);
    }
  }
  return lines.join("\n") + "\n";
}

function flow(value) {
  if (typeof value !== "object") return String(value);
  return "{" + Object.entries(value).map(([stem, name]) => `${stem}: ${name}`).join(", ") + "}";
}

document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("textarea, input[type=number]")) return;
  if (event.target.type === "radio" && event.key.startsWith("Arrow")) return;
  const act = {
    j: () => move(1), ArrowDown: () => move(1), k: () => move(-1), ArrowUp: () => move(-1),
    a: () => current && decide(current, "accepted") && move(1),
    r: () => current && decide(current, "rejected") && move(1),
    u: () => current && decide(current, null),
  }[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

byId("items").addEventListener("click", event => {
  const item = event.target.closest("li");
  if (!item) return;
  const button = event.target.closest("button");
  select(item, !button && !event.target.closest("label"));
  if (button) {
    const same = button.getAttribute("aria-pressed") === "true";
    decide(item, same ? null : button.dataset.do);
  }
});

byId("items").addEventListener("change", event => {
  const item = event.target.closest("li");
  if (decisions[nameOf(item)]?.verdict === "accepted") decide(item, "accepted");
});

byId("toolbar").addEventListener("change", () => {
  if (current && !shown(current)) select(null);
  show();
});

byId("copy").addEventListener("click", async () => {
  byId("yaml").select();
  try {
    await navigator.clipboard.writeText(byId("yaml").value);
    byId("told").textContent = "Copied.";
  } catch (error) {
    byId("told").textContent = "Selected: press Ctrl-C.";
  }
});

for (const item of items) {
  const years = decisions[nameOf(item)]?.years;
  if (yearsOf(item) && Number.isInteger(years)) yearsOf(item).value = years;
}
show();
"""
