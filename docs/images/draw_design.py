"""Draw design.svg: windows, blocks, pools and the line. Run `python docs/images/draw_design.py`."""

import random
from pathlib import Path

STEPS, CHUNK, WINDOW = 24, 4, 3
POOL_BLOCKS, BATCH, RANKS, WORKERS = 2, 4, 2, 2
CELL, LEFT = 28, 148
WIDTH, HEIGHT = LEFT + STEPS * CELL + 24, 468
COLORS = ["#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677", "#aa3377"]  # Paul Tol, bright
INK, FAINT, PAPER = "#22262b", "#8a929c", "#fbfbf8"

samples = STEPS - WINDOW + 1
rng = random.Random(4)
blocks = [
    list(range(start, min(start + CHUNK, samples))) for start in range(0, samples, CHUNK)
]  # samples by the chunk in which their window begins
shuffled = rng.sample(range(len(blocks)), len(blocks))
pools = []
for first in range(0, len(blocks), POOL_BLOCKS):
    pool = [sample for block in shuffled[first : first + POOL_BLOCKS] for sample in blocks[block]]
    pools.append(rng.sample(pool, len(pool)))
line = [sample for pool in pools for sample in pool]

out: list[str] = []


def rect(x, y, width, height, fill, **attributes):
    extra = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in attributes.items())
    out.append(f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{fill}"{extra}/>')


def text(x, y, words, size=13, fill=INK, anchor="start", weight="normal"):
    out.append(
        f'<text x="{x}" y="{y}" font-size="{size}" fill="{fill}" text-anchor="{anchor}" '
        f'font-weight="{weight}">{words}</text>'
    )


def stroke(x1, y1, x2, y2, width=1.0, color=INK):
    out.append(
        f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{color}" stroke-width="{width}"/>'
    )


def title(y, number, name, *notes):
    text(20, y, f"{number} {name}", 16, weight="bold")
    for row, note in enumerate(notes):
        text(20, y + 18 + 15 * row, note, 11.5, "#555c66")


def sample_cell(x, y, sample):
    color = COLORS[sample // CHUNK]
    rect(x + 1, y, CELL - 2, 24, color, rx=3)
    dark = color in ("#66ccee", "#ccbb44", "#ee6677")
    text(x + CELL / 2, y + 16.5, sample, 12, INK if dark else "#ffffff", "middle")


def bracket(x1, x2, y, words):
    stroke(x1, y, x2, y, 1.5)
    stroke(x1, y - 6, x1, y, 1.5)
    stroke(x2, y - 6, x2, y, 1.5)
    text((x1 + x2) / 2, y + 15, words, 12, anchor="middle")


def x_of(step):
    return LEFT + step * CELL


rect(0.5, 0.5, WIDTH - 1, HEIGHT - 1, PAPER, rx=10, stroke="#d5d8dc")
out.append(
    '<defs><pattern id="halo" width="6" height="6" patternUnits="userSpaceOnUse" '
    f'patternTransform="rotate(45)"><rect width="6" height="6" fill="{PAPER}"/>'
    f'<line x1="0" y1="0" x2="0" y2="6" stroke="{FAINT}" stroke-width="3"/></pattern></defs>'
)

y = 34
title(y, 1, "windows", "a sample is", "a place, not", "a copy")
for step in range(STEPS):
    rect(x_of(step) + 1, y - 14, CELL - 2, 22, "#e3e6ea")
for step in range(0, STEPS + 1, CHUNK):
    stroke(x_of(step), y - 18, x_of(step), y + 12, 2)
text(x_of(STEPS), y + 26, "time, stored in chunks →", 11.5, "#555c66", "end")
for sample in range(4):
    top = y + 18 + 15 * sample
    rect(x_of(sample) + 1, top, WINDOW * CELL - 2, 11, COLORS[0], rx=3)
    text(x_of(sample + WINDOW) + 5, top + 9.5, f"sample {sample}", 11)

y = 146
title(y, 2, "blocks", "windows that begin", "in one chunk, and", "the halo they need")
for number, members in enumerate(blocks):
    top = y - 14 + 17 * (number % 2)
    begin, halo = members[0], members[-1] + 1
    end = members[-1] + WINDOW
    rect(x_of(begin) + 1, top, (halo - begin) * CELL - 2, 14, COLORS[number], rx=3)
    rect(x_of(halo), top, (end - halo) * CELL - 2, 14, "url(#halo)", stroke=FAINT)
for step in range(0, STEPS + 1, CHUNK):
    stroke(x_of(step), y - 18, x_of(step), y + 22, 1, FAINT)
text(x_of(STEPS), y + 38, "each read with one call for each variable", 11.5, "#555c66", "end")

y = 248
title(y, 3, "pools", "blocks shuffled,", "samples shuffled", "inside a pool")
x = LEFT
for number, pool in enumerate(pools):
    rect(x + 1, y - 22, len(pool) * CELL - 2, 46, "none", rx=6, stroke=INK, stroke_width=1.2)
    for place, sample in enumerate(sorted(pool, key=lambda s: (shuffled.index(s // CHUNK), s))):
        sample_cell(x + place * CELL, y - 11, sample)
    bottom = f"pool {number}" + ("" if number else ": in memory together")
    text(x + len(pool) * CELL / 2, y + 39, bottom, 11.5, "#555c66", "middle")
    x += len(pool) * CELL

y = 352
title(
    y,
    4,
    "the line",
    "one epoch, a",
    "function of seed",
    "and epoch alone,",
    "cut for ranks,",
    "then for workers",
)
for place, sample in enumerate(line):
    sample_cell(x_of(place), y - 14, sample)
share = samples // RANKS
for rank in range(RANKS):
    begin = rank * share
    batches = -(-share // BATCH)
    bracket(x_of(begin) + 2, x_of(begin + share) - 2, y + 80, f"rank {rank}")
    for worker in range(WORKERS):
        first = begin + worker * batches // WORKERS * BATCH
        last = min(begin + (worker + 1) * batches // WORKERS * BATCH, begin + share)
        bracket(x_of(first) + 5, x_of(last) - 5, y + 46, f"worker {worker}")
        for place in range(first, last, BATCH):
            right = x_of(min(place + BATCH, last))
            stroke(x_of(place) + 5, y + 18, right - 5, y + 18, 3, FAINT)
            text((x_of(place) + right) / 2, y + 32, "batch", 10.5, "#555c66", "middle")
stroke(x_of(share), y - 24, x_of(share), y + 100, 2)

body = "\n".join(out)
Path(__file__).with_name("design.svg").write_text(
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
    'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif">\n'
    "<title>Windows, blocks, pools and the line</title>\n"
    f"{body}\n</svg>\n"
)
