import matplotlib
import pytest
from matplotlib.figure import Figure

from maskcls.reports import page
from tests.conftest import faults_of
from tests.maskcls.reports.test_run import check


def whole(*body):
    return page.PAGE.format(title="t", css=page.CSS, body="\n".join(body))


@pytest.mark.parametrize("width", [390, 1400])
def test_what_is_wider_than_the_screen_scrolls_in_its_own_box(browser, tmp_path, width):
    table = page.table("wide", [f"column {n}" for n in range(60)], [["cell"] * 60] * 3)
    long = page.section("A title", "note", f"<p>{'x' * 500}</p>")
    path = tmp_path / "page.html"
    path.write_text(whole("<main>", page.section("Wide", "", table), long, "</main>"))
    assert faults_of(browser, path, width) == []


def test_the_browser_finds_what_is_wrong(browser, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(
        whole(
            '<div style="width: 3000px">wide</div>',
            '<img src="http://elsewhere.example/a.png">',
            "<script>console.error('no'); undefined_name</script>",
        )
    )
    told = "\n".join(faults_of(browser, path, 800))
    for fault in ("3", "asks for http", "console error: no", "undefined_name", "no picture", "alt"):
        assert fault in told


def test_texts_of_tables_and_pictures_are_escaped():
    table = page.table("a < b", ["<th>", "&"], [["<b>", "<i>"]])
    assert "<b>" not in table
    assert "<th>" not in table.replace('<th scope="col">', "").replace("</th>", "")
    assert 'alt="&quot;&lt;&quot;"' in page.image(b"", "jpeg", '"<"')
    assert "<dt>a&amp;b</dt><dd>&lt;</dd>" in page.facts({"a&b": "<"})


def test_links_lead_to_sections():
    titles = ["Result", "Age, gender and kind of photo"]
    body = [page.navigation(titles), *(page.section(title, "") for title in titles)]
    checker = check(whole(*body))
    links = [address[1:] for address in checker.addresses if address.startswith("#")]
    assert links == checker.ids == ["result", "age-gender-and-kind-of-photo"]


def test_the_same_plot_is_the_same_picture():
    def draw():
        with matplotlib.rc_context(page.PLOT_STYLE):
            figure = Figure()
            figure.subplots().plot([1, 2], clip_on=True)
            return page.plot(figure, "a line", "what it <shows>")

    assert draw() == draw()
    assert "<figcaption>what it &lt;shows&gt;</figcaption>" in draw()
