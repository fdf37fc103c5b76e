"""Draws what the benchmark `growth` wrote: python3 docs/performance/plot.py GROWTH.tsv GROWTH.svg"""

import csv
import math
import sys

WIDTH, HEIGHT = 960, 440
TOP, BOTTOM = 92, 62
PANELS = (
    # title, column, its unit, what turns it into that, where the panel begins
    ("Memory of all sessions", "memory_kib", "MiB", 1 / 1024, 80),
    ("Time until all have heard of a change", "change_ms", "ms", 1, 560),
)
PANEL_WIDTH = 370
ERAS = {"legacy": ("#1f5fa8", "circle"), "modern": ("#c2571a", "square")}
INK, FAINT, GRID, PAPER = "#222222", "#767676", "#dddddd", "#ffffff"


class Scale:
    """Maps a logarithmic axis to pixels; its ends are powers of ten."""

    def __init__(self, values, start, end):
        self.low = math.floor(math.log10(min(values)))
        self.high = max(math.ceil(math.log10(max(values))), self.low + 1)
        self.start, self.end = start, end

    def __call__(self, value):
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self):
        return [10.0**power for power in range(self.low, self.high + 1)]


def line(x1, y1, x2, y2, color, width=1.0, more=""):
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{color}" stroke-width="{width}" {more}/>'


def text(x, y, words, size=13, anchor="middle", color=INK, more=""):
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"'
    return f'<text {place} fill="{color}" {more}>{words}</text>'


def mark(shape, x, y, color):
    # One is to be seen behind the other.
    if shape == "circle":
        place = f'cx="{x:.1f}" cy="{y:.1f}" r="7"'
        return f'<circle {place} fill="{PAPER}" stroke="{color}" stroke-width="2"/>'
    return f'<rect x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7" fill="{color}"/>'


def number(value):
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def panel(rows, title, column, unit, factor, left):
    right, bottom = left + PANEL_WIDTH, HEIGHT - BOTTOM
    curves = {era: [] for era in ERAS}
    for row in rows:
        # Streams of events are in the table only.
        if row["era"] not in curves:
            continue
        curves[row["era"]].append((int(row["sessions"]), float(row[column]) * factor))
    points = sorted(point for curve in curves.values() for point in curve)
    across = Scale([sessions for sessions, _ in points], left, right)
    up = Scale([value for _, value in points], bottom, TOP)

    out = [text(left, TOP - 22, f"{title}, {unit}", 15, "start", more='font-weight="bold"')]
    for tick in across.ticks():
        out.append(line(across(tick), TOP, across(tick), bottom, GRID))
        out.append(text(across(tick), bottom + 20, number(tick)))
    for tick in up.ticks():
        out.append(line(left, up(tick), right, up(tick), GRID))
        out.append(text(left - 8, up(tick) + 4.5, number(tick), anchor="end"))
    out.append(text((left + right) / 2, bottom + 44, "open sessions"))

    # What is linear is parallel to this line, which goes through the largest measurement.
    most, value = points[-1]
    # It ends where it would leave the panel, at the left or at the bottom.
    least = max(10.0**across.low, most * 10.0**up.low / value)
    slope = value / most
    out.append(line(across(least), up(least * slope), across(most), up(value), FAINT, 1.5,
                    'stroke-dasharray="3 5"'))

    for era, curve in curves.items():
        color, shape = ERAS[era]
        places = [(across(sessions), up(value)) for sessions, value in sorted(curve)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        out.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        out += [mark(shape, x, y, color) for x, y in places]
    return out


def legend():
    out, x = [], PANELS[0][-1]
    for era, (color, shape) in ERAS.items():
        out += [line(x, 30, x + 30, 30, color, 2), mark(shape, x + 15, 30, color)]
        out.append(text(x + 38, 34.5, era, anchor="start"))
        x += 120
    out.append(line(x, 30, x + 30, 30, FAINT, 1.5, 'stroke-dasharray="3 5"'))
    out.append(text(x + 38, 34.5, "linear growth", anchor="start"))
    return out


def main(source, target):
    with open(source, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" font-family="Helvetica, Arial, sans-serif">',
        "<title>Memory and time of a server by the number of its sessions</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}"/>',
        *legend(),
    ]
    for of in PANELS:
        out += panel(rows, *of)
    with open(target, "w", encoding="utf-8") as file:
        file.write("\n".join([*out, "</svg>", ""]))


if __name__ == "__main__":
    main(*sys.argv[1:])
