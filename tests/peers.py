"""Runs one test suite of another project, on cold or on warm kernels, and writes down how every test ended. `test_peers.py` compares the two.

    python tests/peers.py SUITE cold|warm RESULT.json [words for pytest]
"""
import json, os, sys, time
from collections import Counter
from pathlib import Path

# jupyter_client's own kernels, as ipykernel's launcher starts them: so they can be forked, and start without the two seconds that they sleep otherwise.
KERNELS = {"tests.signalkernel": "SignalTestKernel", "tests.problemkernel": "ProblemTestKernel", "pytest_jupyter.echo_kernel": "EchoKernel"}

class Ends:
    "A pytest plug-in: how every test and subtest ended, why it failed, and how many kernels were forked."
    def __init__(self): self.ends, self.why, self.forked = {}, {}, Counter()

    def pytest_collection_modifyitems(self, items): ours_is_known(items)

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome != "passed": self.note(report, "xfailed" if hasattr(report, "wasxfail") else report.outcome)

    def pytest_collectreport(self, report):
        if report.outcome == "failed": self.note(report, "error")

    def note(self, report, end):
        self.ends.setdefault(report.nodeid, []).append(end)
        if end in ("failed", "error"): self.why[report.nodeid] = report.longreprtext[-3000:]

def ours_is_known(items):
    "A suite with a list of provisioners of its own knows ours as well."
    for known in {id(m): m for i in items if (m := getattr(i.module, "initial_provisioner_map", None))}.values(): known["mlops-nb-warm"] = "mlops_nb.run.provisioner:WarmProvisioner"

def launched_by_ipykernel():
    from jupyter_client.manager import KernelManager
    format = KernelManager.format_kernel_cmd
    def format_kernel_cmd(self, *args, **more):
        cmd = format(self, *args, **more)
        name = cmd[2] if cmd[1:2] == ["-m"] else None
        if name not in KERNELS or "FAIL_ON_START" in self.kernel_spec.env: return cmd
        return [cmd[0], "-m", "ipykernel_launcher", *cmd[3:], f"--IPKernelApp.kernel_class={name}.{KERNELS[name]}"]
    KernelManager.format_kernel_cmd = format_kernel_cmd

def all_warm(ends, any_home):
    "Every kernel waits for its zygote; where every test has a home folder of its own, that is no part of the zygote's name."
    from mlops_nb.run import warm
    if any_home: warm.AT_IMPORT = tuple(p for p in warm.AT_IMPORT if p != "HOME" and not p.startswith("XDG_"))
    fork = warm.fork
    def patient(cmd, streams, env, **more):
        while warm.prepare({**warm.QUIET, **env}) == "importing": time.sleep(.02)
        got = fork(cmd, streams, env=env, **more)
        ends.forked["warm" if got else "cold"] += 1
        return got
    warm.fork = patient

def main(suite, how, result, *words):
    sys.path[0] = os.getcwd()   # not our tests: theirs are a package `tests` too
    sys.path.append(os.environ["PEERS_PLUGINS"])
    import pytest
    ends = Ends()
    if suite == "jupyter_client": launched_by_ipykernel()
    if how == "warm": all_warm(ends, any_home=suite == "jupyter_client")
    code = pytest.main([*words], plugins=[ends])
    Path(result).write_text(json.dumps(dict(code=int(code), ends=ends.ends, why=ends.why, forked=ends.forked)))

if __name__ == "__main__": main(*sys.argv[1:])
