"""kill -9 while somebody labels: of the kernel, of the browser, of both, at moments drawn at random, in a real Voila with a real Chromium. Every answer the browser saw
acknowledged must be in the database, every one once. KILLS=210, HOSTS=JupyterLab,Voila; two kills of three are in JupyterLab, of the kernel"""
import os, platform, sys, tempfile, time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true", PYTHONPATH=str(ROOT))
KILLS, HOSTS = int(os.environ.get("KILLS", 210)), os.environ.get("HOSTS", "JupyterLab,Voila").split(",")

def main():
    from playwright.sync_api import sync_playwright
    from mlops_nb.core.config import settings_for
    from mlops_nb.label import queue
    from tests.test_label_widget import Killed, KilledInLab, end, new_project, start_lab, start_voila, texts
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    with tempfile.TemporaryDirectory() as tmp, sync_playwright() as p, settings_for(new_project(Path(tmp)/"project")):
        folder = Path(tmp)/"project"
        for host, kills in (("JupyterLab", KILLS - KILLS//3), ("Voila", KILLS//3)):
            if host not in HOSTS: continue
            queue.create(host, texts(40*kills), key="id", kind="text", classes=("good", "bad", "so so"))
            server, address = (start_lab if host == "JupyterLab" else start_voila)(folder)
            person = (KilledInLab if host == "JupyterLab" else Killed)(p, server, address, Path(tmp)/host, host)
            person.books = folder/"books"
            try:
                person.start()
                labels(host, kills, person)
            finally: end(server)

def labels(host, kills, person):
    began, victims = time.time(), {}
    for n in range(kills):
        victim = "kernel" if host == "JupyterLab" else person.dice.choice(("kernel", "browser", "both"))
        person.kill(*([] if host == "JupyterLab" else [victim]))
        victims[victim] = victims.get(victim, 0) + 1
        if n % 10 == 9 or n == kills - 1:
            acknowledged, kept = person.check(all_of_them=host == "JupyterLab")
            print(f"{host}: {n + 1} kills {victims}, {len(person.made):,} events made, {acknowledged:,} acknowledged, {kept:,} in the database: 0 acknowledged lost, 0 twice ({time.time() - began:.0f} s)", flush=True)

if __name__ == "__main__": main()
