"""avpops: tests and prints AVPs."""

from __future__ import annotations

from homerd.api import ModParam, Packet, Plugin, Readable, Writable, compile_posix, script_function

DEBUG = 3


class AvpOps(Plugin):
    """The part of avpops that needs no database."""

    name = "avpops"

    db_url = ModParam(str, "", reloadable=True, help="accepted")
    avp_table = ModParam(str, "", reloadable=True, help="accepted")
    use_domain = ModParam(int, 0, reloadable=True, help="accepted")

    @script_function
    def is_avp_set(self, packet: Packet, variable: Readable) -> bool:
        """Whether the variable has a value; the empty text is one."""
        return variable.get(packet) is not None

    @script_function
    def avp_delete(self, packet: Packet, variable: Writable) -> None:
        """Take the value away."""
        variable.set(packet, None)

    @script_function
    def avp_print(self, packet: Packet) -> None:
        """Log all AVPs at level debug."""
        for name, values in packet.scratch.get("avp", {}).items():
            packet.log(DEBUG, f"avp {name}: {', '.join(map(str, reversed(values)))}\n")

    @script_function
    def avp_check(self, packet: Packet, variable: Readable, test: str) -> bool:
        """Compare with `eq/…`, `ne/…`, `lt/…`, `gt/…`, `le/…`, `ge/…` or `re/…`."""
        value = variable.get(packet)
        operator, _, rest = test.partition("/")
        wanted = rest.removesuffix("/g").removesuffix("/i")
        if value is None:
            return False
        if operator == "re":
            return compile_posix(wanted).search(str(value))
        if operator in ("eq", "ne"):
            return (str(value) == wanted) is (operator == "eq")
        left, right = _number(value), _number(wanted)
        return {
            "lt": left < right,
            "gt": left > right,
            "le": left <= right,
            "ge": left >= right,
        }.get(operator, False)


def _number(value: str | int) -> int:
    try:
        return int(value)
    except ValueError:
        return 0
