from pathlib import Path

import pytest
from listeners import KEEP, Listener

from homerd.core.program import load
from homerd.core.worker import Worker

MODULES = Path(__file__).parent / "modules"


@pytest.fixture
def worker_for():
    """A started worker for the text of a script, with modules pv, xlog and probe loaded."""
    started = []

    def make(script, **options):
        head = f'mpath "{MODULES}"\nloadmodule "pv"\nloadmodule "xlog"\nloadmodule "probe"\n'
        worker = Worker(load(Path("homer.cfg"), text=head + script), **options)
        worker.probe = worker.program.registry.plugin("probe")
        worker.start()
        started.append(worker)
        return worker

    yield make
    for worker in started:
        worker.close()
        worker.stop()


@pytest.fixture
def listener_for(worker_for, free_port):
    """A worker that listens on a loopback port, on a loop that runs."""
    made = []

    def make(scheme, settings="", script=KEEP):
        made.append(Listener(worker_for(settings + script), scheme, free_port))
        return made[-1]

    yield make
    for listener in made:
        listener.close()
