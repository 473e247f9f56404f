"""A second module for tests of the core: parameters, tables and what it is told on a reload."""

from homerd.api import ConfigError, ModParam, Packet, Plugin, hookimpl, script_function


class Extra(Plugin):
    """count()"""

    greeting = ModParam(str, "hello", reloadable=True)
    place = ModParam(str, "here")

    def __init__(self):
        self.counted = 0
        self.told = []

    @hookimpl
    def configure(self, changed):
        if self.greeting == "refuse":
            raise ConfigError("no greeting")
        self.told.append(sorted(changed))

    @hookimpl
    def startup(self, worker):
        self.told.append("startup")

    @hookimpl
    def shutdown(self, worker):
        self.told.append("shutdown")

    @hookimpl
    def script_swapped(self, worker):
        self.told.append("swapped")

    @script_function
    def count(self, packet: Packet) -> int:
        """Count."""
        self.counted += 1
        return self.counted
