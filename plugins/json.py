"""json: fields out of JSON text.  jansson does more."""

from __future__ import annotations

from homerd.api import Packet, Plugin, Writable, script_function
from homerd_plugins import _json


class Json(Plugin):
    """Reads fields of JSON objects."""

    name = "json"

    @script_function
    def json_get_field(self, packet: Packet, source: str, key: str, target: Writable) -> bool:
        """Put the member *key* of the object *source* into *target* as JSON text.

        A text keeps its quotes.  False, and *target* as it was, when there is no such member.
        """
        value = _field(source, key)
        if value is _json.MISSING:
            return False
        target.set(packet, _json.dumps(value))
        return True

    @script_function
    def json_get_string(self, packet: Packet, source: str, key: str, target: Writable) -> bool:
        """As json_get_field, a text without its quotes."""
        value = _field(source, key)
        if value is _json.MISSING:
            return False
        target.set(packet, value if isinstance(value, str) else _json.dumps(value))
        return True


def _field(source: str, key: str) -> _json.Json:
    try:
        tree = _json.loads(source)
    except ValueError:
        return _json.MISSING
    return tree.get(key, _json.MISSING) if isinstance(tree, dict) else _json.MISSING
