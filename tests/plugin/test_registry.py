"""Modules found by name."""

from __future__ import annotations

from homerd.plugin.registry import Registry

MODULE = '''\
from __future__ import annotations

from dataclasses import dataclass

from homerd.api import Packet, Plugin, script_function


@dataclass(frozen=True, slots=True)
class Greeting:
    text: str


class Greeter(Plugin):
    """Greets."""

    name = "greeter"

    @script_function
    def greet(self, packet: Packet) -> bool:
        """Say hello."""
        return bool(Greeting("hello").text)
'''


def test_a_module_of_a_folder_may_hold_dataclasses(tmp_path):
    (tmp_path / "greeter.py").write_text(MODULE)
    registry = Registry()
    registry.paths = [tmp_path]
    assert registry.load("greeter").name == "greeter"
    assert list(registry.vocabulary().functions) == ["greet"]
