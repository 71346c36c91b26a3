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
  byId("message").textContent = "This browser keeps no decisions: export before you leave.";
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

function isVisible(item) {
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
  const visible = items.filter(isVisible);
  const at = visible.indexOf(current);
  const next = at < 0 ? 0 : at + step;
  if (visible[next]) select(visible[next]);
}

function show() {
  const verdicts = { accepted: 0, rejected: 0 };
  const open = {};
  for (const item of items) {
    const verdict = decisions[nameOf(item)]?.verdict;
    item.hidden = !isVisible(item);
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
    const { task, folder, stem, likely } = item.dataset;
    if (task === "age") all.set_age[folder] = decision.years;
    else if (task === "mask") (all.set_mask[folder] ??= {})[stem] = likely;
    else {
      // The given gender is that after the fixes of the run: a second flip undoes the first.
      all.flip_gender = all.flip_gender.filter(other => other !== folder);
      if (!("flipped" in item.dataset)) all.flip_gender.push(folder);
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
  if (current && !isVisible(current)) select(null);
  show();
});

byId("copy").addEventListener("click", async () => {
  byId("yaml").select();
  try {
    await navigator.clipboard.writeText(byId("yaml").value);
    byId("message").textContent = "Copied.";
  } catch (error) {
    byId("message").textContent = "Selected: press Ctrl-C.";
  }
});

for (const item of items) {
  const years = decisions[nameOf(item)]?.years;
  if (yearsOf(item) && Number.isInteger(years)) yearsOf(item).value = years;
}
show();
