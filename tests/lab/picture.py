"""A picture of the Grafana dashboard without Grafana: its queries, asked of a Prometheus, drawn by pygal and photographed by Chromium."""

import datetime as dt
import html
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pygal
import pytest
from pygal.style import DarkStyle
from selenium import webdriver

from components.monitoring.dashboard import Panel

Series = Mapping[str, Sequence[tuple[float, float]]]  # by legend: time and value
WIDTH, CHROME = 1400, 140  # of the window; what of its height is not the page's
DRIVER, CHROMIUM = shutil.which("chromedriver"), shutil.which("chromium")
needs_chromium = pytest.mark.skipif(not (DRIVER and CHROMIUM), reason="needs chromium and chromium-driver (tools/packages.sh)")
COLOURS = ("#73bf69", "#5794f2", "#f2cc0c", "#ff9830", "#b877d9", "#e02f44", "#8ab8ff", "#96d98d")
PAGE = """<!doctype html><meta charset="utf-8"><style>
body {{ background: #111217; color: #ccccdc; font: 13px sans-serif; margin: 12px; display: grid;
  grid-template-columns: repeat(4, 1fr); gap: 8px; width: 1376px }}
h2 {{ grid-column: span 4; font-size: 14px; margin: 8px 0 0 }}
div {{ background: #181b1f; border: 1px solid #2c2f35; padding: 8px }}
.graph {{ grid-column: span 2 }} h3 {{ font-size: 12px; font-weight: 600; margin: 0 0 6px }}
dl {{ display: grid; grid-template-columns: auto auto; margin: 0; gap: 4px }}
dd {{ color: #73bf69; font-size: 19px; margin: 0; text-align: right }} dt {{ align-self: center }}
svg {{ display: block; height: 210px; width: 100% }}
</style>{}"""


def scaled(steps: Sequence[tuple[float, str]]) -> Callable[[float], str]:
    """Writes a value in the first unit that it has one of; the last unit for what is smaller than all."""

    def write(value: float) -> str:
        unit, name = next((step for step in steps if abs(value) >= step[0]), steps[-1])
        return f"{value / unit:.3g} {name}"

    return write


UNITS: dict[str, Callable[[float], str]] = {
    "s": scaled(((86400, "days"), (3600, "h"), (60, "min"), (1, "s"))),
    "bytes": scaled(((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B"))),
    "percentunit": "{:.1%}".format,
    "short": "{:.4g}".format,
}


def legend(pattern: str, labels: Mapping[str, str]) -> str:
    """As Grafana fills in `{{label}}`."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), pattern)


def draw(rows: Mapping[str, Sequence[tuple[Panel, Series]]], picture: Path) -> None:
    """Panels with their series, by row."""
    body = ""
    for title, panels in rows.items():
        body += f"<h2>{html.escape(title)}</h2>"
        for panel, series in panels:
            shown = (_stat if panel.kind == "stat" else _graph)(panel, series) if series else "No data"
            body += f'<div class="{panel.kind}"><h3>{html.escape(panel.title)}</h3>{shown}</div>'
    page = picture.with_suffix(".html")
    page.write_text(PAGE.format(body), encoding="utf-8")
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    with webdriver.Chrome(options, webdriver.ChromeService(str(DRIVER), env={**os.environ, "NO_PROXY": "*"})) as browser:
        browser.get(page.as_uri())
        browser.set_window_size(WIDTH, 900)
        browser.set_window_size(WIDTH, browser.execute_script("return document.documentElement.scrollHeight") + CHROME)
        browser.save_screenshot(str(picture))


def _stat(panel: Panel, series: Series) -> str:
    last = ((name, UNITS[panel.unit](points[-1][1])) for name, points in series.items())
    return "<dl>" + "".join(f"<dt>{html.escape(name)}</dt><dd>{value}</dd>" for name, value in last) + "</dl>"


def _graph(panel: Panel, series: Series) -> str:
    style = DarkStyle(background="#181b1f", plot_background="#181b1f", colors=COLOURS, label_font_size=11, legend_font_size=11)
    chart = pygal.XY(
        width=680,
        height=210,
        style=style,
        show_dots=False,
        legend_at_bottom=True,
        legend_box_size=9,
        margin=4,
        js=[],
        disable_xml_declaration=True,
        value_formatter=UNITS[panel.unit],
        x_value_formatter=lambda when: dt.datetime.fromtimestamp(when, dt.UTC).strftime("%H:%M:%S"),
        include_x_axis=True,
        max_scale=5,
        stroke_style={"width": 2},
    )
    for name, points in series.items():
        chart.add(name, list(points))
    return chart.render(is_unicode=True)
