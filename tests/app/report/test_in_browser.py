"""The report in headless Chromium: clicking, selecting, filtering, exporting."""

import io
import os
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from jaxrefine.app.config import Config
from jaxrefine.app.report import particle_images as images
from jaxrefine.app.report.page import ReportOptions, write_report
from jaxrefine.app.run import particle_views
from jaxrefine.app.run.particle_views import ParticleView
from jaxrefine.io.mrc import write_image
from jaxrefine.io.table import write_table
from tests.app.report.test_report import FAILED, POLISHED
from tests.reference import reference_set

pytestmark = pytest.mark.browser

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_TRAP = "<img src=x onerror=document.title=1>.mrc"
_COUNT = 40


def without(reason):
    """Skipped on a machine without a browser; in continuous integration there is one."""
    if os.environ.get("JAXREFINE_NEEDS_BROWSER"):
        pytest.fail(f"JAXREFINE_NEEDS_BROWSER is set, but {reason}")
    pytest.skip(f"no browser test: {reason}")


@pytest.fixture(scope="module")
def browser():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        without("the package playwright is not installed")
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        without(f"none of {', '.join(_NAMES)} is installed")
    quiet = ("background-networking", "component-update", "quic", "sync", "gpu")
    flags = ["--no-sandbox", *(f"--disable-{name}" for name in quiet)]
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=flags)
        yield started
        started.close()


def rows_of(rng):
    """Two micrographs: one exists, the name of the other is a trap. z is 8 … 18."""
    z = np.linspace(8, 18, _COUNT)
    rows = []
    for i in range(_COUNT):
        row = POLISHED | {
            "particle_index": str(100 + i),
            "micrograph_path": "a b.mrc" if i % 2 else _TRAP,
            "scaled_mip": f"{z[i] - 1:.3f}",
            "refined_scaled_mip": f"{z[i]:.3f}",
            "refined_theta": f"{20 + rng.normal():.2f}",
            "refined_relative_defocus": f"{140 + 10 * i}",
            "refined_pos_x": f"{21 + i % 8}",
            "best_reference": "closed" if i % 4 else "open",
            "reference_probability": "0.95",
        }
        rows.append(row | (FAILED if i == 3 else {}))
    return rows


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("browser"), np.random.default_rng(0)
    rows = rows_of(rng)
    write_table(pd.DataFrame(rows), folder / "refined.csv")
    other = [row | {"refined_scaled_mip": "9.0"} for row in rows if row["refined_phi"]]
    write_table(pd.DataFrame(other), folder / "other.csv")
    image = rng.standard_normal((96, 80)).astype(np.float32)
    write_image(folder / "a b.mrc", image)
    options = ReportOptions(
        micrographs=0,
        threshold=9.5,
        against=folder / "other.csv",
        config=Config.load(reference_set("basic", folder / "set") / "refine.yaml"),
        particles=12,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "MOST_BYTES_IN_PAGE", 0)  # in a folder beside the page
        patch.setattr(images, "_PER_SHEET", 3)
        patch.setattr(particle_views, "particle_views", dark_and_bright)
        return write_report(folder / "refined.csv", folder / "shown", options)


def dark_and_bright(config, table, rows, shift_px, see):
    """Images of particles: the box image is dark below its `row`-th line, else bright."""
    for row in rows:
        image = np.repeat((np.arange(48) < row).astype(float)[:, None], 48, axis=1)
        z = np.where(np.arange(5) == 2, 12.5, -3.0)
        see(ParticleView(row, image, image[::-1], image.T, np.outer(z, [1, 1, 1, 1, 1])))


def brightness(tab, number):
    """Mean grey value of one of the images of the particle that was clicked."""
    tab.wait_for_function(
        "() => document.querySelector('#detail canvas')?.width === 48", timeout=5000
    )
    shot = tab.locator("#detail canvas").nth(number).screenshot()
    return np.asarray(Image.open(io.BytesIO(shot)).convert("L"), float).mean()


@pytest.fixture(scope="module")
def tab(browser, page_file):
    """The page, opened; errors of its script and breaches of its policy are kept."""
    opened = browser.new_page(viewport={"width": 1400, "height": 900})
    opened.faults = []
    opened.on("pageerror", lambda error: opened.faults.append(str(error)))
    opened.on("request", lambda asked: opened.faults.append(asked.url))
    opened.on(
        "console",
        lambda said: opened.faults.append(said.text) if said.type == "error" else None,
    )
    opened.goto(page_file.as_uri())
    opened.wait_for_selector("html[data-ready=yes]")
    return opened


def text_of(tab, selector):
    return tab.inner_text(selector)


def settle(tab):
    """Wait until the requested plot is painted."""
    tab.evaluate(
        "() => new Promise((then) => requestAnimationFrame(() => requestAnimationFrame("
        "() => setTimeout(then, 30))))"
    )


def place_in(tab, plot, x, y):
    """Window coordinates in pixels of a data point in a plot."""
    tab.locator(f"#plot-{plot}").scroll_into_view_if_needed()
    return tab.evaluate(
        """([id, x, y]) => {
          const host = document.getElementById(`plot-${id}`);
          const view = Object.values(Bokeh.index).find((one) => host.contains(one.el));
          const { frame } = view;
          const box = view.el.getBoundingClientRect();
          return [box.x + frame.x_scale.compute(x), box.y + frame.y_scale.compute(y)];
        }""",
        [plot, x, y],
    )


def drag(tab, plot, start, end):
    """Try again if the browser was so slow that Bokeh saw a long press (0.3 s)."""
    before = text_of(tab, "#counts")
    for _ in range(6):
        tab.mouse.move(*place_in(tab, plot, *start))
        tab.mouse.down()
        tab.mouse.move(*place_in(tab, plot, *end), steps=2)
        tab.mouse.up()
        settle(tab)
        if text_of(tab, "#counts") != before:
            return


def orange_in(tab, plot):
    """Number of pixels of a plot in the colour of selected particles."""
    return tab.evaluate(
        """(id) => {
          const host = document.getElementById(`plot-${id}`);
          const view = Object.values(Bokeh.index).find((one) => host.contains(one.el));
          const { canvas } = view.canvas_view.compose();
          const { data } = canvas.getContext("2d").getImageData(
            0, 0, canvas.width, canvas.height);
          let count = 0;
          for (let i = 0; i < data.length; i += 4) {
            count += data[i] > 180 && data[i + 1] < 140 && data[i + 2] < 60;
          }
          return count;
        }""",
        plot,
    )


@pytest.mark.slow
def test_page_is_worked_in(tab, tmp_path):
    settle(tab)
    assert text_of(tab, "#counts") == "0 selected · 40 of 40 shown"
    linked = ("scores", "position", "defocus", "directions", "sigma_orientation", "z_other")
    assert [orange_in(tab, name) for name in linked] == [0] * len(linked)

    # Brushing in one plot selects in all: z of 13 to 15 are eight particles.
    drag(tab, "scores", (11.9, 12.9), (14.1, 15.1))
    selected = [row for row in range(_COUNT) if 12.9 < 8 + row * 10 / 39 < 15.1]
    assert text_of(tab, "#counts") == f"{len(selected)} selected · 40 of 40 shown"
    assert all(orange_in(tab, name) > 10 for name in linked)
    tab.check("#only-selected")
    settle(tab)
    lines = tab.locator("#particle-table tbody tr[data-row]")
    assert lines.count() == len(selected)
    tab.uncheck("#only-selected")

    # The selection as a file.
    with tab.expect_download() as waiting:
        tab.click("#export")
    waiting.value.save_as(tmp_path / "selection.csv")
    assert waiting.value.suggested_filename == "refined_selection.csv"
    saved = (tmp_path / "selection.csv").read_text().split()
    assert saved == ["particle_index", *(str(100 + row) for row in selected)]

    # In the histogram, with Shift: added to what is selected.
    tab.keyboard.down("Shift")
    drag(tab, "histogram", (17.0, 0.5), (18.4, 1.0))
    tab.keyboard.up("Shift")
    more = [row for row in range(_COUNT) if 8 + row * 10 / 39 >= 17.0]
    assert text_of(tab, "#counts").startswith(f"{len(selected) + len(more)} selected")

    # A click on a particle: its row, its images and its micrograph.
    x, y = 8 + 37 * 10 / 39 - 1, 8 + 37 * 10 / 39
    tab.mouse.click(*place_in(tab, "scores", x, y))
    settle(tab)
    assert text_of(tab, "#detail h3") == "Particle 137"
    assert f"{y:.3f}" in text_of(tab, "#detail dl")
    assert "Reference: closed" in text_of(tab, "#detail")
    assert tab.locator("#detail canvas").count() == 4
    assert "z at each position: −3.0 to 12.5" in text_of(tab, "#detail")
    # Each image is cut from its place in a sheet: 37 of 48 lines are bright. The grey
    # frame around it and JPEG change a mean by a few of 255 grey values.
    assert brightness(tab, 0) == pytest.approx(255 * 37 / 48, abs=10)
    assert text_of(tab, "#micrograph-name") == "a b.mrc"
    assert tab.locator("#particle-table tr.picked").get_attribute("data-row") == "37"
    tab.locator("#particle-table thead button", has_text="particle").first.click()
    tab.locator('#particle-table tr[data-row="2"]').click()
    settle(tab)
    assert brightness(tab, 0) == pytest.approx(255 * 2 / 48, abs=10)
    tab.locator('#particle-table tr[data-row="12"]').click()  # neither high nor low
    settle(tab)
    assert "--particles all" in text_of(tab, "#detail")
    tab.locator("#particle-table thead button", has_text="particle").first.click()
    tab.mouse.move(*place_in(tab, "defocus", 140.0, 40.0))
    settle(tab)
    assert text_of(tab, "#hint").startswith("particle 100 · z match 7.000")

    # Filters and sorting; an invalid filter is marked, and removes nothing.
    field = tab.get_by_label("filter z refined")
    field.fill(">= 17")
    settle(tab)
    assert text_of(tab, "#counts").endswith(f"{len(more)} of 40 shown")
    tab.click("#select-shown")
    settle(tab)
    assert text_of(tab, "#counts").startswith(f"{len(more)} selected")
    field.fill("many")
    settle(tab)
    assert field.get_attribute("aria-invalid") == "true"
    assert text_of(tab, "#counts").endswith("40 of 40 shown")
    tab.get_by_label("filter status").fill("outside")
    settle(tab)
    assert lines.count() == 1 and lines.first.get_attribute("data-row") == "3"
    tab.click("#clear-filters")
    tab.get_by_label("filter reference").fill("open")
    settle(tab)
    assert text_of(tab, "#counts").endswith("10 of 40 shown")
    tab.click("#clear-filters")
    for order, first in (("descending", "39"), ("ascending", "0"), ("none", "0")):
        tab.locator("#particle-table thead button", has_text="z refined").click()
        settle(tab)
        heading = tab.locator("#particle-table th", has_text="z refined").first
        assert heading.get_attribute("aria-sort") == order
        tab.evaluate("document.querySelector('#particle-table .rows').scrollTop = 0")
        settle(tab)
        assert lines.first.get_attribute("data-row") == first

    # The worst micrograph is the one with the failed particle.
    tab.locator("#micrograph-table thead button", has_text="not refined").click()
    worst = tab.locator("#micrograph-table tbody tr[data-row]").first
    assert worst.inner_text().startswith("a b.mrc")
    tab.locator("#micrograph-table tbody tr[data-row]").last.click()
    settle(tab)
    assert text_of(tab, "#micrograph-name") == _TRAP
    assert "No image" in text_of(tab, "#micrograph-note")

    # Text of the table was never run as code, and nothing was requested from a network.
    assert tab.title() == "refined.csv: refinement report"
    assert tab.locator("#particle-table img, #micrograph-table img").count() == 0
    asked = [one for one in tab.faults if not one.startswith(("file:", "data:", "blob:"))]
    files = {one.rpartition("/")[2] for one in tab.faults if one.startswith("file:")}
    assert asked == [] and files == {"report.html", "00000.jpg", "00003.jpg"}


def test_scripts_other_than_the_page_s_own_do_not_run(browser, page_file, tmp_path):
    """The policy allows the two scripts by their hashes; an injected one is refused."""
    source = page_file.read_text(encoding="utf-8")
    planted = "<script>document.title = 'taken'</script></body>"
    (tmp_path / "planted.html").write_text(source.replace("</body>", planted))
    opened = browser.new_page()
    opened.goto((tmp_path / "planted.html").as_uri())
    opened.wait_for_selector("html[data-ready=yes]")
    assert opened.title() == "refined.csv: refinement report"
    assert "unsafe-eval" not in source.partition("</head>")[0]
    opened.close()


def test_on_a_touch_screen_a_finger_scrolls_until_a_tool_is_chosen(browser, page_file):
    opened = browser.new_page(viewport={"width": 400, "height": 800}, has_touch=True)
    opened.goto(page_file.as_uri())
    opened.wait_for_selector("html[data-ready=yes]")
    actions = """() => Object.values(Bokeh.index).filter((view) => view.canvas_view).map(
      (view) => getComputedStyle(view.canvas_view.events_el).touchAction)"""
    assert set(opened.evaluate(actions)) == {"auto"}
    opened.evaluate("""() => {
      const host = document.getElementById("plot-scores");
      const view = Object.values(Bokeh.index).find((one) => host.contains(one.el));
      const lasso = (tool) => tool.type === "LassoSelectTool";
      view.model.toolbar.tools.find(lasso).active = true;
    }""")
    settle(opened)
    assert opened.evaluate(actions).count("pinch-zoom") == 1
    opened.close()


@pytest.mark.slow
def test_nothing_is_wider_than_the_screen_and_figures_are_for_print(tab):
    for width in (420, 1600):
        tab.set_viewport_size({"width": width, "height": 900})
        settle(tab)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
    explore, figure = tab.locator("section.explore"), tab.locator("section.static img")
    assert explore.is_visible() and not figure.first.is_visible()
    tab.emulate_media(media="print")
    assert figure.first.is_visible() and not explore.is_visible()
    tab.emulate_media(media="screen")
