"""The page: what it says without a browser, what a browser makes of it, and whether faults show."""

from __future__ import annotations

import json
import re

import pytest
import sample_page
from browser import PageFault, check_clean, find_browser, look_at
from sample_page import HEADS, LAYERS, TOKENS

from ioi_fast.report import colours
from ioi_fast.report.figures import HeatMap
from ioi_fast.report.page import render, write_page

# What the page shows when nobody touches it, and after a pointer, a key and a click.
QUESTIONS = """(answer) => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const tip = document.getElementById("tip");
  const said = () => [...tip.children].map(part => part.textContent);
  const boxes = all(".cell").map(cell => cell.getBoundingClientRect());
  answer.cells = boxes.filter(box => box.width > 8 && box.height > 8).length;
  answer.marked = all(".cell.marked").map(cell => cell.dataset.label);
  answer.fill = getComputedStyle(document.querySelector('[data-label="2.1"]')).backgroundColor;
  answer.paper = getComputedStyle(document.body).backgroundColor;
  answer.tipAtFirst = tip.hidden;
  const cell = document.querySelector('[data-label="2.1"]');
  cell.dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
  answer.hover = said();
  cell.dispatchEvent(new PointerEvent("pointerout", { bubbles: true }));
  answer.tipAfter = tip.hidden;
  const press = (key) => document.activeElement.dispatchEvent(
    new KeyboardEvent("keydown", { key, bubbles: true }));
  document.querySelector('.cell[tabindex="0"]').focus();
  for (const key of ["ArrowRight", "ArrowDown", "End"]) press(key);
  document.body.dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
  document.dispatchEvent(new Event("scroll"));
  answer.tipKept = !tip.hidden;
  answer.focused = said();
  answer.stops = all('.cell[tabindex="0"]').length;
  press("Escape");
  answer.tipEscaped = tip.hidden;
  const [group, fixed] = all(".tokens");
  const weights = (of) => [...of.children].map(token => token.style.getPropertyValue("--weight"));
  answer.weights = weights(group);
  group.children[2].dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
  answer.tokenHover = said();
  group.children[1].click();
  answer.weightsFromSecond = weights(group);
  fixed.children[1].click();
  answer.fixedWeights = weights(fixed);
  answer.overflow = document.documentElement.scrollWidth - innerWidth;
}"""


@pytest.fixture(scope="module")
def browser() -> str:
    found = find_browser()
    if found is None:
        pytest.skip("no headless browser here (apt-get install chromium-headless-shell)")
    return found


@pytest.fixture
def look(browser, tmp_path):
    """Looks at HTML text with the questions above."""

    def at(html: str, ask: str = QUESTIONS, **window):
        (tmp_path / "page.html").write_text(html, encoding="utf-8")
        return look_at(tmp_path / "page.html", browser=browser, scratch=tmp_path, ask=ask, **window)

    return at


# In a browser


def test_the_page_is_clean_and_complete_in_a_browser(look):
    seen = look(render(sample_page.page()))
    check_clean(seen)
    answer = seen.answer
    assert answer["cells"] == LAYERS * HEADS
    assert answer["marked"] == ["2.1"]
    assert answer["overflow"] == 0
    assert seen.picture.startswith(b"\x89PNG") and len(seen.picture) > 10_000


def test_hover_focus_and_click_show_the_values(look):
    answer = look(render(sample_page.page())).answer
    assert answer["tipAtFirst"] and answer["tipAfter"] and answer["tipEscaped"]
    assert answer["hover"] == ["2.1", "−2.414 ± 0.004"]
    assert answer["focused"] == ["1.4", "+0.090 ± 0.004"]
    assert answer["tipKept"]
    assert answer["stops"] == 1
    assert answer["weights"] == ["0.000", "0.000", "0.875", "0.000", "0.000", "0.000", "0.125"]
    assert answer["tokenHover"] == ["“ Mary” IO", "0.875 of the attention from “ to”"]
    assert answer["weightsFromSecond"] == ["0.500", "0.500"] + ["0.000"] * 5
    assert answer["fixedWeights"] == answer["weights"]


def test_both_colour_schemes_and_a_phone(look):
    html = render(sample_page.page())
    light, dark = look(html), look(html, dark=True)
    assert light.answer["paper"] == "rgb(253, 253, 252)"
    assert dark.answer["paper"] == "rgb(20, 23, 27)"
    for seen, scheme in ((light, colours.LIGHT), (dark, colours.DARK)):
        assert seen.answer["fill"] == f"rgb{scheme.diverging(-1)}"
    phone = look(html, width=500, dark=True)
    check_clean(phone)
    assert phone.answer["overflow"] == 0


@pytest.mark.parametrize(
    ("planted", "complaint"),
    [
        ("<script>undefinedName.field;</script>", "undefinedName is not defined"),
        ("<script>console.error('lost', 7);</script>", "lost 7"),
        ("<script>Promise.reject('late');</script>", "late"),
        ("<img src='https://example.org/a.png'>", "blocked https://example.org/a.png"),
        ("<link rel=stylesheet href='https://example.org/a.css'>", "blocked https://example.org"),
    ],
)
def test_a_planted_fault_is_reported(look, planted, complaint):
    html = render(sample_page.page()).replace("</main>", planted + "</main>")
    with pytest.raises(PageFault, match=re.escape(complaint)):
        check_clean(look(html))


def test_fetching_is_reported_without_the_policy_too(look):
    policy = re.compile(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>")
    html, count = policy.subn("", render(sample_page.page()))
    assert count == 1
    html = html.replace("</main>", "<img src='https://example.org/a.png'></main>")
    with pytest.raises(PageFault, match=r"example\.org/a\.png"):
        check_clean(look(html))


def test_a_missing_heat_map_and_a_missing_script_are_seen(look):
    sections = (sample_page.bar_list(), sample_page.attention_map(), sample_page.table())
    counted = "(answer) => { answer.cells = document.querySelectorAll('.cell').length; }"
    assert look(render(sample_page.page(*sections)), ask=counted).answer["cells"] == 0
    html = render(sample_page.page())
    script = html.index('<script>\n"use strict"')
    mute = html[:script] + "</body></html>"
    assert look(mute).answer["hover"] == ["", ""]


def test_a_page_that_never_loads_is_a_fault(look):
    with pytest.raises(PageFault, match="did not finish loading in 3 s"):
        look(render(sample_page.page()), ask="(answer) => { for(;;); }", patience=3)


def test_a_page_that_says_nothing_is_a_fault(browser, tmp_path):
    empty = tmp_path / "empty.html"
    empty.write_text("<!doctype html><template><head></head></template>", encoding="utf-8")
    with pytest.raises(PageFault, match="did not finish loading"):
        look_at(empty, browser=browser, scratch=tmp_path)


# Without a browser


def test_everything_is_escaped():
    html = render(sample_page.page())
    assert "<script>throw" not in html
    assert "{{ 7 * 7 }}" in html
    assert html.count("</script>") == html.count("<script")
    data = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', html)
    assert json.loads(data[0])[-1] == [0.0, 0.0, 0.875, 0.0, 0.0, 0.0, 0.125]
    assert "&lt;|endoftext|&gt;" in html and TOKENS[5] not in html


def test_nothing_is_loaded_from_anywhere():
    html = render(sample_page.page())
    assert "default-src 'none'" in html
    assert not re.findall(r"""(?:src|href)\s*=\s*(?!"data:)|url\(|@import|https?:""", html)


def test_the_values_stand_in_a_table_too():
    details = render(sample_page.page()).split("<details>")[1].split("</details>")[0]
    cells = re.findall(r'<td class="number">(.*?)</td>', details)
    assert len(cells) == LAYERS * HEADS
    assert cells[4] == "–" and cells[11] == "−2.414 ± 0.004"


def test_bars_share_one_scale_and_errors_are_drawn():
    html = render(sample_page.page(sample_page.bar_list()))
    span = 2.464 + 1.5
    assert f"--zero: {100 * 2.464 / span:.3f}%" in html
    assert f"left:{100 * 0.05 / span:.3f}%;width:{100 * 2.414 / span:.3f}%" in html
    assert f"left:{100 * 3.464 / span:.3f}%;width:{100 * 0.5 / span:.3f}%" in html
    assert html.count('class="whisker"') == 2


def test_provenance_is_written_out():
    html = render(sample_page.page())
    assert "<dt>versions</dt><dd>torch 2.13.0</dd>" in html
    assert "<dt>commit</dt><dd>none</dd>" in html


def test_a_wide_model_gets_the_whole_width():
    labels = [str(column) for column in range(25)]
    wide = HeatMap("t", "", [[1.0] * 25], row_labels=["0"], column_labels=labels, marked={(0, 3)})
    html = render(sample_page.page(wide))
    assert 'class="heat wide"' in html
    assert 'class="heat wide"' not in render(sample_page.page())


def test_writing_is_all_or_nothing(tmp_path, monkeypatch):
    path = write_page(sample_page.page(), tmp_path / "new" / "report.html")
    before = path.read_bytes()
    assert before.startswith(b"<!doctype html>") and before.rstrip().endswith(b"</html>")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_page(sample_page.page(sample_page.table()), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]


def test_only_a_page_is_rendered():
    with pytest.raises(TypeError, match="page: expected a Page, got Table"):
        render(sample_page.table())
