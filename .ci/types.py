"What mypy finds wrong with the library's types; nothing is allowed. uv fetches mypy, and keeps it."
import os, shutil, subprocess, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MYPY = "mypy==2.4.1"   # another version finds other things

uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}") or "uv"
sys.exit(subprocess.run([uv, "tool", "run", "-q", MYPY, "--python-executable", sys.executable, "-p", "mlops_nb"], cwd=ROOT).returncode)
