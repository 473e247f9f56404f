"""A module for tests of the core: a sink in memory, and a function that fails."""

from homerd.api import BatchSink, Packet, Plugin, hookimpl, script_function


class Kept(BatchSink):
    """Keeps what is written."""

    def __init__(self):
        super().__init__("kept")
        self.rows = []

    def write(self, batch):
        self.rows += batch

    def label(self, record):
        return record.partition(" ")[0]


class Probe(Plugin):
    """keep(text), fail()"""

    @hookimpl
    def startup(self, worker):
        self.worker = worker
        self.sink = worker.add_sink(Kept())
        self.calls = ["startup"]

    @hookimpl
    def shutdown(self, worker):
        self.calls.append("shutdown")

    @script_function
    def keep(self, packet: Packet, text: str) -> bool:
        """Store *text*."""
        return packet.emit(self.sink, text)

    @script_function
    def fail(self, packet: Packet) -> bool:
        """Fail."""
        raise RuntimeError("on purpose")
