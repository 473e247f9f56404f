"""AVPs and XAVPs: per-packet stacks of values, and of records of such stacks.

Assignment pushes; an index on the left side of an AVP does not select.  `[*]` replaces everything,
and reads all values joined by ", ".
"""

from __future__ import annotations

from homerd.api import Packet, Text, Value

# A stack's last value is its top, which index 0 names.
Stack = list[str | int]
Record = dict[str, Stack]

_ALL = "*"


def bind_name(argument: Text | None) -> tuple[object, ...]:
    """The name of `$avp(…)`: `x` and `s:x` are one, `i:5` is another name space."""
    if argument is None:
        raise ValueError("expected a name in parentheses")
    head, found, rest = argument.strip().partition(":")
    if found and head.constant == "s":
        argument = rest
    constant = argument.strip().constant
    if constant == "":
        raise ValueError("the name is empty")
    return (argument.strip(),) if constant is None else (constant,)


def bind_index(index: Text | None) -> object:
    """The index: None, a number, "*" or a Text that gives one of these for each packet."""
    if index is None:
        return None
    constant = index.strip().constant
    if constant is None:
        return index.strip()
    return _as_index(constant, strict=True)


def read(stacks: dict[str, Stack], name: str, index: object) -> Value:
    """One value of the stack *name*, or all of them joined."""
    stack = stacks.get(name)
    if not stack:
        return None
    if index is None:
        return stack[-1]
    place = _as_index(index)
    if place == _ALL:
        return ", ".join(map(str, reversed(stack)))
    if isinstance(place, int) and 0 <= place < len(stack):
        return stack[-1 - place]
    return None


def write(stacks: dict[str, Stack], value: Value, name: str, index: object) -> None:
    """Push *value*; null removes the top.  With the index `*` all old values go."""
    if index is not None and _as_index(index) == _ALL:
        stacks.pop(name, None)
    stack = stacks.get(name)
    if value is not None:
        if stack is None:
            stacks[name] = [value]
        else:
            stack.append(value)
    elif stack:
        stack.pop()


def bind_xavp(argument: Text | None) -> tuple[object, ...]:
    """`root[i]=>key[j]` or `root[i]` as (root, i, key, j); key is "" when there is none."""
    if argument is None:
        raise ValueError("expected root=>key in parentheses")
    root, found, key = argument.strip().partition("=>")
    name, place = _split_index(root)
    if name.constant == "":
        raise ValueError("expected root=>key, the root is empty")
    if not found:
        return (_constant(name), place, "", None)
    field, field_place = _split_index(key)
    if field.constant == "":
        raise ValueError("expected root=>key, the key is empty")
    return (_constant(name), place, _constant(field), field_place)


def read_xavp(
    roots: dict[str, list[Record]], root: str, place: object, key: str, index: object
) -> Value:
    """A value of one of the records *root*; without key, the value given to the record itself."""
    record = _record(roots, root, place)
    return None if record is None else read(record, key, index)


def write_xavp(
    roots: dict[str, list[Record]], value: Value, root: str, place: object, key: str, index: object
) -> None:
    """Without an index of the root a new record is pushed, with one it is changed."""
    if value is None:
        _remove(roots, root, place, key)
        return
    record = None if place is None else _record(roots, root, place)
    if record is not None:
        stack = record.setdefault(key, [])
        number = None if index is None else _as_index(index)
        if isinstance(number, int) and 0 <= number < len(stack):
            stack[-1 - number] = value
        else:
            write(record, value, key, index)
    elif place is None:
        roots.setdefault(root, []).append({key: [value]})


def _remove(roots: dict[str, list[Record]], root: str, place: object, key: str) -> None:
    records = roots.get(root, [])
    if key:
        record = _record(roots, root, place)
        if record is not None:
            record.pop(key, None)
    elif place is not None and _as_index(place) == _ALL:
        records.clear()
    elif records:
        records.pop()


def _record(roots: dict[str, list[Record]], root: str, place: object) -> Record | None:
    records = roots.get(root)
    number = 0 if place is None else _as_index(place)
    if number == _ALL:
        number = 0
    if not records or not isinstance(number, int) or not 0 <= number < len(records):
        return None
    return records[-1 - number]


def _split_index(text: Text) -> tuple[Text, object]:
    name, found, rest = text.strip().partition("[")
    if not found:
        return name, None
    index, closed, after = rest.partition("]")
    if not closed or after.constant != "":
        raise ValueError(f'cannot read the index in "{text.source}"')
    return name.strip(), bind_index(index)


def _constant(text: Text) -> object:
    return text if text.constant is None else text.constant


def _as_index(index: object, *, strict: bool = False) -> object:
    if isinstance(index, int):
        return index
    text = str(index).strip()
    if text == _ALL:
        return _ALL
    try:
        return int(text)
    except ValueError:
        if strict:
            raise ValueError(f'an index is a number or *, not "{text}"') from None
        return None


def stacks_of(packet: Packet) -> dict[str, Stack]:
    """The packet's AVPs, made when they are first written to."""
    stacks: dict[str, Stack] = packet.scratch.setdefault("avp", {})
    return stacks


def roots_of(packet: Packet, kind: str) -> dict[str, list[Record]]:
    """The packet's records of *kind* ("xavp", "xavu", "xavi")."""
    roots: dict[str, list[Record]] = packet.scratch.setdefault(kind, {})
    return roots
