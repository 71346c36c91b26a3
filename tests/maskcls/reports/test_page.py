import re

import matplotlib
import pytest
from jinja2 import UndefinedError
from matplotlib.figure import Figure

from maskcls.reports import page
from tests.conftest import faults_of
from tests.maskcls.reports.test_run import check


def whole(*body):
    """A page with these parts, which are HTML or templates of the shared macros."""
    template = (
        '{% extends "page.html.j2" %}{% import "parts.html.j2" as parts %}{% set title = "t" %}'
        "{% block body %}" + "\n".join(body) + "{% endblock %}"
    )
    return page._environment().from_string(template)


@pytest.mark.parametrize("width", [390, 1400])
def test_what_is_wider_than_the_screen_scrolls_in_its_own_box(browser, tmp_path, width):
    table = page.Table("wide", [f"column {n}" for n in range(60)], [["cell"] * 60] * 3)
    text = whole(
        "<main>",
        '{% call parts.section("Wide") %}{{ parts.table(table) }}{% endcall %}',
        '{% call parts.section("A title", "note") %}<p>{{ "x" * 500 }}</p>{% endcall %}',
        "</main>",
    ).render(table=table)
    path = tmp_path / "page.html"
    path.write_text(text)
    assert faults_of(browser, path, width) == []


def test_the_browser_finds_what_is_wrong(browser, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(
        whole(
            '<div style="width: 3000px">wide</div>',
            '<img src="http://elsewhere.example/a.png">',
            "<script>console.error('no'); undefined_name</script>",
        ).render()
    )
    told = "\n".join(faults_of(browser, path, 800))
    for fault in ("3", "asks for http", "console error: no", "undefined_name", "no picture", "alt"):
        assert fault in told


def test_every_text_is_escaped():
    table = page.Table("a < b", ["<th>", "&"], [["<b>", "<i>"]])
    picture = page.Picture("data:,", '"<"', "<s>")
    text = whole(
        "{{ parts.header(name, [name]) }}",
        "{% call parts.section(name, name) %}{% endcall %}",
        "{{ parts.table(table) }}{{ parts.figure(picture) }}{{ parts.facts({name: name}) }}",
        "{{ parts.list_of([name, name], 1, name) }}",
    ).render(table=table, picture=picture, name="<u>&")
    checker = check(text)
    assert checker.tables == [[["<th>", "&"], ["<b>", "<i>"]]]
    assert not re.search("<[buis]>", text)
    assert 'alt="&#34;&lt;&#34;"' in text


def test_a_name_that_a_template_lacks_is_an_error():
    with pytest.raises(UndefinedError, match="nothing"):
        whole("{{ nothing }}").render()


def test_styles_and_scripts_are_taken_as_they_are():
    assert "{{" not in (text := whole('{{ source("label_errors.js") }}').render())
    assert 'byId("none").hidden = items.some(item => !item.hidden);' in text


def test_links_lead_to_sections():
    titles = ["Result", "Age, gender and kind of photo"]
    text = whole(
        "{{ parts.navigation(titles) }}",
        "{% for title in titles %}{% call parts.section(title) %}{% endcall %}{% endfor %}",
    ).render(titles=titles)
    checker = check(text)
    links = [address[1:] for address in checker.addresses if address.startswith("#")]
    assert links == checker.ids == ["result", "age-gender-and-kind-of-photo"]


def test_a_photo_that_cannot_be_read_is_said_to_be_so(tmp_path):
    picture = page.thumbnail(str(tmp_path / "none.jpg"), "a photo", 50)
    assert picture.src == ""
    text = whole("{{ parts.image(picture) }}").render(picture=picture)
    assert "not readable" in text
    assert "<img" not in text


def test_the_same_plot_is_the_same_picture():
    def draw():
        with matplotlib.rc_context(page.PLOT_STYLE):
            figure = Figure()
            figure.subplots().plot([1, 2], clip_on=True)
            return page.plot(figure, "a line", "what it <shows>")

    assert draw() == draw()
    assert draw().src.startswith("data:image/svg+xml;base64,")
