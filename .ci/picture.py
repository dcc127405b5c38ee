"The README's picture: the monitoring page that `make demo` leaves, as a browser shows it. Usage: picture.py [REPORTS]"
import sys
from pathlib import Path
from playwright.sync_api import sync_playwright

page = Path(sys.argv[1] if len(sys.argv) > 1 else "reports").resolve()/"late_flights.html"
if not page.exists(): sys.exit(f"{page} is not there; run: make demo")
with sync_playwright() as p:
    browser = p.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"])
    shown = browser.new_page(viewport=dict(width=1280, height=900))
    shown.goto(page.as_uri())
    shown.screenshot(path=Path(__file__).resolve().parents[1]/"docs/dashboard.png")
    browser.close()
