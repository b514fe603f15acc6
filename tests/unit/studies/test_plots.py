"""Plots of studies are told apart without colour: read from the drawn SVG, not from the styles."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

from codepmp_ray.studies.outcome import Plot, PlotKind, Series
from codepmp_ray.studies.plots import draw, line_styles

SVG, LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
KNOWN = ("random", "length", "majority", "oracle")


def _looks(drawn: str, among: str, kind: str = "line2d") -> list[tuple[str | None, str | None]]:
    """(dashes, shape of the marker) of each line whose group lies in a group `among`."""
    root = ElementTree.fromstring(drawn)
    shapes = {e.get("id"): _moved(e.get("d") or "") for e in root.iter(f"{SVG}path") if e.get("id")}
    (group,) = (e for e in root.iter(f"{SVG}g") if among in (e.get("id") or ""))
    found = []
    for line in (e for e in group.iter(f"{SVG}g") if kind in (e.get("id") or "")):
        path, use = next(line.iter(f"{SVG}path"), None), next(line.iter(f"{SVG}use"), None)
        style = "" if path is None else path.get("style") or ""
        dashes = re.search(r"stroke-dasharray: ([^;]*)", style)
        # A shape that is used once stands where it is used.
        inline = _moved(path.get("d") or "") if path is not None and kind != "line2d" else None
        name = None if use is None else (use.get(LINK) or use.get("href") or "").lstrip("#")
        found.append((dashes.group(1) if dashes else None, shapes.get(name, inline)))
    return found


def _moved(shape: str) -> str:
    """The shape as if it began at the origin, to a tenth."""
    letters, numbers = re.findall(r"[A-Za-z]", shape), re.findall(r"-?[\d.]+", shape)
    places = [float(number) for number in numbers]
    return f"{letters} {[round(p - places[i % 2], 1) + 0.0 for i, p in enumerate(places)]}"


def _plot(series: list[Series], kind: PlotKind = "curves") -> Plot:
    return Plot("title", "x", "y", series, log_x=False, kind=kind)


def _series(label: str, num: int = 3, *, is_baseline: bool = False) -> Series:
    x = [float(i) for i in range(1, num + 1)]
    return Series(label, x, [0.5] * num, [0.4] * num, [0.6] * num, is_baseline=is_baseline)


def test_curves_and_baselines_differ_without_colour() -> None:
    curves = [_series(f"curve {i}") for i in range(8)]
    baselines = [_series(name, is_baseline=True) for name in KNOWN]
    # Those of HH-RLHF by code pairs: without PMP and two laws, for three sizes.
    laws = [_series(f"law {i}", 25, is_baseline=True) for i in range(9)]
    every = [*curves, *baselines, *laws]
    looks = _looks(draw(_plot(every), "x"), "legend")
    assert len(looks) == len(every)
    assert all(marker for _, marker in looks), "a line has no marker"
    assert len(set(looks)) == len(every)


def test_known_baselines_look_alike_in_every_plot() -> None:
    few = line_styles([_series("a"), _series("oracle", is_baseline=True)])
    many = line_styles([_series(n, is_baseline=True) for n in ("other", *KNOWN)] + [_series("a")])
    assert few[-1] == many[4] and few[0] == many[-1]


def test_long_lines_keep_their_markers_and_stay_visible() -> None:
    series = [_series("a", 100), _series("b", 100), _series("law", 25, is_baseline=True)]
    drawn = draw(_plot(series), "x")
    assert len({marker for _, marker in _looks(drawn, "legend")}) == 3
    assert drawn.count("<use ") < 60  # ticks and legend among them


@pytest.mark.parametrize("kind", ["radar", "points"])
def test_so_do_radars_and_maps(kind: PlotKind) -> None:
    series = [_series(f"s {i}") for i in range(8)]
    plot = Plot("title", "x", "y", series, kind=kind, spokes=["one", "two", "three"])
    drawn = draw(plot, "x")
    looks = _looks(drawn, "legend", "line2d" if kind == "radar" else "PathCollection")
    assert len(set(looks)) == len(looks) == 8
    assert (None, _moved("")) not in looks, "the legend is cut off"
