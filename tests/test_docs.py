"""Pages that name things name all of them, and the README's commands exist."""

import re
import typing

import pytest

from maskcls.config import keys, schema
from maskcls.data.label_fixes import LabelFixes, load_fixes
from maskcls.labels import Task
from maskcls.learning import backbones
from maskcls.quality import appearance
from tests.conftest import ROOT

NAMES = (ROOT / "docs" / "names.md").read_text(encoding="utf-8")
BAD_INPUT = (ROOT / "docs" / "bad_input.md").read_text(encoding="utf-8")
READMES = {
    name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.ko.md")
}
SECTIONS = {
    "Augmentations": "augment",
    "Batch mixing": "augment.mix",
    "Losses": "loss",
    "What tells age": "age",
    "Optimisers": "optimizer",
    "Schedules": "schedule",
    "Samplers": "sampler",
}


def names_under(heading):
    section = NAMES.split(f"\n## {heading} ")[1].split("\n## ")[0]
    return set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))


@pytest.mark.parametrize("heading", SECTIONS)
def test_the_page_of_names_is_complete(heading):
    methods = keys.inside(SECTIONS[heading], schema.Config)
    assert names_under(heading) == set(map(keys.name_of, methods))


def test_tasks_backbones_searchers_and_ensembles_are_listed():
    ensembles = keys.inside("ensemble", schema.Config)
    assert names_under("Ensembles") == set(map(keys.name_of, ensembles))
    assert names_under("Tasks") == {str(task) for task in Task}
    assert names_under("Backbones") == set(backbones.BACKBONES)
    searchers = schema.Tune.model_fields["searcher"].annotation
    assert names_under("Searchers") == set(typing.get_args(searchers))


@pytest.mark.parametrize("name", READMES)
def test_the_commands_of_the_readme_exist(name):
    for package, module in re.findall(r"python -m (maskcls|ray_jobs)\.(\w+)", READMES[name]):
        assert (ROOT / package / f"{module}.py").is_file(), module
    for path in re.findall(r"configs/[\w/]+\.yaml", READMES[name]):
        assert (ROOT / path).is_file(), path


PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "benchmarks/*.md", "examples/**/*.md", "configs/**/*.md")
    for page in ROOT.glob(pattern)
)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    for link in links:
        if "://" not in link and not link.startswith("#"):
            there = (ROOT / page).parent / link.partition("#")[0]
            assert there.exists(), link


def test_every_kind_of_bad_input_is_tested():
    rows = re.findall(r"^\| .* \| `([\w/]+\.py)::(\w+)` \|$", BAD_INPUT, re.MULTILINE)
    assert len(rows) >= 40
    for file, test in rows:
        source = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert f"def {test}(" in source, f"{file}::{test}"


def test_the_readme_says_the_same_in_both_languages():
    codes = [re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for text in READMES.values()]
    words = [[re.sub(r" *#.*", "", code) for code in part] for part in codes]
    assert words[0] == words[1]
    # Commands, files and keys in tables and in the text.
    names = [sorted(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)))
             for text in READMES.values()]  # fmt: skip
    assert set(names[0]) == set(names[1])


def test_the_page_of_data_shows_label_fixes_that_can_be_read(tmp_path):
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "fixes.yaml").write_text(example, encoding="utf-8")
    fixes = load_fixes(tmp_path / "fixes.yaml")
    assert all(value for _, value in fixes)
    assert {name for name, _ in fixes} == set(LabelFixes.model_fields)
    for threshold in (f"{appearance.COPY_BITS} of 255 bits", f"{appearance.OUTLIER} times as far"):
        assert threshold in page
