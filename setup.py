"Packaging: what a person edits stands in settings.ini; this file only maps folders to packages."
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

ini = ConfigParser(interpolation=None)
ini.read("settings.ini", encoding="utf-8")
project = ini["project"]

def lines(text): return [line for line in text.splitlines() if line.strip()]

# Workflow notebooks and Voila pages ship in the wheel, though their source stays in nbs/.
notebooks = {"mlops_nb.workflows": "nbs/workflows", "mlops_nb.dashboards": "nbs/dashboards"}

# The template of our Voila pages: the package has it, and a wheel puts it where stock Voila looks.
jupyter = Path("mlops_nb/static/jupyter")
shared = {}
for file in sorted(f for f in jupyter.rglob("*") if f.is_file()): shared.setdefault(f"share/jupyter/{file.parent.relative_to(jupyter).as_posix()}", []).append(file.as_posix())

setup(
    version=project["version"],
    description=project["description"],
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    keywords=project["keywords"].split(),
    classifiers=[*(f"Programming Language :: Python :: {v}" for v in ("3", "3.11", "3.12", "3.13")), "Framework :: Jupyter", "Intended Audience :: Science/Research"],
    install_requires=lines(project["dependencies"]),
    extras_require={name: lines(needs) for name, needs in ini["extras"].items()},
    packages=find_packages(include=["mlops_nb", "mlops_nb.*"]) + list(notebooks),
    package_dir=notebooks,
    package_data={"mlops_nb": ["static/**/*"], **{package: ["*.ipynb"] for package in notebooks}},
    entry_points={"console_scripts": ["mlops-nb = mlops_nb.cli.cli:main"], "nbdev": ["mlops_nb = mlops_nb._modidx:d"],
                  "jupyter_client.kernel_provisioners": ["mlops-nb-warm = mlops_nb.run.provisioner:WarmProvisioner"],
                  "papermill.engine": ["mlops-nb = mlops_nb.run.engine:PapermillEngine"]},
    data_files=[("share/jupyter/kernels/mlops-nb", ["mlops_nb/run/kernel.json"]), *shared.items()],
)
