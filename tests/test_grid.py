"What `mlops-nb lab` opens, in a real browser: the workflow notebooks, a warm kernel, nothing asked of other hosts; a table that sorts and filters there, and is a short table when the notebook is opened again."
import json
from pathlib import Path

import pytest

from conftest import CHROMIUM, wait_until, write_notebook
from mlops_nb.core.config import settings_for
from mlops_nb.pages import lab as pages_lab
from test_lab import Notebook, end, home, serve, who, zygote_of   # noqa: F401

pytestmark = pytest.mark.skipif(not Path(CHROMIUM).exists(), reason=f"{CHROMIUM} is not installed; apt-get install chromium")

CELLS = ["import os; print(os.getpid(), os.getppid())",
         "import pandas as pd\nfrom mlops_nb.pages.grid import grid\ngrid(pd.DataFrame({'carrier': [f'C{i%7}' for i in range(300)], 'delay': [float(i) for i in range(300)]}), 'flights')",
         "from mlops_nb.run.track import track\nfor i in track(range(400), 'rows'): pass"]

def test_lab_opens_warm_and_offline_with_tables(tmp_path, browser):
    (tmp_path/"settings.ini").write_text("[mlops_nb]\n")
    write_notebook(tmp_path/"nbs/workflows/table.ipynb", *CELLS)
    env = home(tmp_path)
    zygote = zygote_of(env)
    with settings_for(tmp_path): words = pages_lab.command("table", browser=False)[0]
    options = [w for w in words[3:] if not w.startswith(("--port", "--no-browser"))]
    process, address = serve(tmp_path, env, "/api", "jupyterlab", *options, "--IdentityProvider.token=tok", "--LabApp.expose_app_in_browser=True")
    try:
        outer, page = [], browser.new_context(viewport=dict(width=1400, height=1000)).new_page()
        page.set_default_timeout(90_000)
        page.route("**/*", lambda r: r.continue_() if r.request.url.startswith((address, "data:", "blob:")) else (outer.append(r.request.url), r.abort()))
        page.goto(f"{address}/?token=tok", wait_until="commit")
        page.locator(".jp-Notebook .jp-Cell").first.wait_for()
        page.evaluate("jupyterapp.restored")
        b = Notebook(page, "nbs/workflows/table.ipynb")
        assert who(b.run(0))[1] == zygote
        b.start(1)
        rows = page.locator(".mlops-grid tbody tr")
        rows.nth(99).wait_for()
        page.locator(".mlops-grid").get_by_role("button", name="delay").dblclick()      # down
        wait_until("sorted rows", lambda: rows.first.inner_text().split() == ["C5", "299"])
        page.get_by_label("filter rows").fill("c3, delay < 50")
        wait_until("filtered rows", lambda: rows.count() == 7)
        assert page.locator(".mlops-grid .count").inner_text() == "7 of 300 rows" and not page.locator(".mlops-sum").first.is_visible()
        assert b.run(2).startswith("rows 400/400")
        b.js("await jupyterapp.commands.execute('docmanager:save')")
        page.context.close()
        kept = json.loads((tmp_path/"nbs/workflows/table.ipynb").read_text())["cells"][1]["outputs"]
        assert "292 more rows" in str(kept[0]["data"]["text/html"]) and outer == []
    finally: end(process)
