"""Draw the pictures of how-to/plots.md and of tutorials/missing-days.md and date-line.md.

Run `python docs/images/draw_plots.py`.

The notebook's page is taken by Chromium, where there is one; without, that picture stays as it is.
"""

import contextlib
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

HERE = Path(__file__).parent
PAGE = """<!doctype html><html{theme}><meta charset="utf-8">
<body style="font: 14px system-ui, sans-serif; margin: 0; padding: 8px 14px; {colors}">{html}
</body></html>"""


def save(ax, name):
    ax.figure.savefig(HERE / f"{name}.png", dpi=72)


def screenshot(html, path, dark, size="780,560"):
    """Let a browser draw a page."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        return
    colors = "background: #111" if dark else "background: #fff; color: #111"
    theme = ' data-theme="dark"' if dark else ""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(PAGE.format(theme=theme, colors=colors, html=html))
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        options += ["--hide-scrollbars", f"--user-data-dir={folder}", f"--window-size={size}"]
        command = [browser, *options, f"--screenshot={path}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)


def blocks_of(page, kinds="python"):
    """Blocks of code of a page, without those that save pictures."""
    found = re.findall(rf"```(?:{kinds})\n(.*?)```", (HERE.parent / page).read_text(), re.DOTALL)
    return [re.sub(r".*savefig.*\n", "", block) for block in found]


with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
    names = {}
    for block in blocks_of("tutorials/missing-days.md", r"python|\{\.python \.ours\}"):
        exec(block, names)
        if "plot.windows" in block:
            save(names["ax"], "plot_breaks")
            break

names = {}
for block in blocks_of("tutorials/date-line.md", r"python|\{\.python \.ours\}"):
    exec(block, names)
    if ".plot(" in block:
        save(names["axes"][0, 0], "plot_date_line")
        break

names = {}
blocks = blocks_of("how-to/plots.md")
pictures = [None, "plot_batch", "plot_truth"]
pictures += ["plot_windows", "plot_plan", "plot_plane", "plot_stats"]
for block, picture in zip(blocks, pictures, strict=True):
    exec(block, names)
    if picture in ("plot_batch", "plot_truth"):
        save(names["axes"][0, 0], picture)
    elif picture:
        save(names["ax"], picture)
html = names["dataset"]._repr_html_().replace(str(Path(names["iris_sample_data"].path)), "data")
screenshot(html, HERE / "repr.png", dark=False)
