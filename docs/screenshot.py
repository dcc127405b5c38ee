"""The picture of the README: the monitoring page as the last run left it, in a real browser. Run by hand from the project's folder:

    python docs/screenshot.py [MODEL] [FILE]        (late_flights, docs/dashboard.png)

Needs playwright and a chromium; nothing is drawn or touched up, and without a run before it the picture says UNKNOWN.
"""
import sys, tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from mlops_nb.pages.monitoring import write_report

def shoot(page_file, picture, chromium="/usr/bin/chromium", width=1280, height=900):
    "Photograph the first screen of an HTML file, at twice the pixels."
    with sync_playwright() as p:
        found = {"executable_path": chromium} if Path(chromium).exists() else {}
        browser = p.chromium.launch(args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"], **found)
        page = browser.new_page(viewport={"width": width, "height": height}, device_scale_factor=2, color_scheme="light")
        page.goto(Path(page_file).as_uri())
        page.screenshot(path=picture)
        browser.close()

if __name__ == "__main__":
    model, picture = [*sys.argv[1:], *["late_flights", "docs/dashboard.png"][len(sys.argv) - 1:]]
    with tempfile.TemporaryDirectory() as folder: shoot(write_report(model, f"{folder}/page.html"), picture)
    print(picture)
