"""After warm_up and the check of fetching nothing is loaded any more: the first steps cost what later ones do."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from pathlib import Path

from numba.core.dispatcher import Dispatcher

from benchmarks.stages.in_process import Log, WorkerInProcess
from benchmarks.workload import make_workload
from stream.app.warm import warm_up
from stream.contracts.definitions import Definitions
from stream.intake.fetch_check import why_not_raw

log = Log(make_workload(0.03))
warm_up(Definitions())
assert not why_not_raw()
modules = set(sys.modules)
late = []
load = Dispatcher.compile

def noted(kernel, signature):
    late.append(f"{kernel.py_func.__module__}.{kernel.py_func.__name__}{signature}")
    return load(kernel, signature)

Dispatcher.compile = noted
worker = WorkerInProcess(log, Path(sys.argv[1]))
worker.run()
worker.close()
assert worker.records == log.events
print(*late, sep="\\n")
print(*sorted(name for name in set(sys.modules) - modules if name.startswith("pyarrow")), sep="\\n")
"""


def test_counting_loads_no_kernel_and_no_module_of_pyarrow(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        check=True,
        timeout=300,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.stdout.split() == []
