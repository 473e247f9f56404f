"""SQL text of scripts, made fit for the store it goes to.

A script pastes values into its text, so that each text is new while its shape is not: the shape is
the text with its literals taken out.  What a shape becomes in another store's SQL is worked out
once (sqlglot, about a millisecond) and remembered; a text of a known shape costs a scan for its
literals (12 µs for 110 characters).

In literals a backslash escapes as in MySQL, which is what `{s.escape.common}` and `{sql.val}`
write; for a script that speaks another SQL only `\\'`, `\\"` and `\\\\` do.  Every literal is
written anew by the rules of the store, whatever the script escaped it for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

MYSQL, POSTGRES, SQLITE = "mysql", "postgres", "sqlite"
MOST_SHAPES = 1000
MOST_VARIANTS = 100

# A table's unique keys, the primary one first, each the columns of one.
UniqueKeys = Callable[[str], list[list[str]]]

_TOKEN = re.compile(
    r"""
      '(?P<single>(?:[^'\\]|\\.|'')*)'
    | "(?P<double>(?:[^"\\]|\\.|"")*)"
    | (?P<kept> `[^`]*` | --[ \t][^\n]* | /\*.*?\*/ | \#[^\n]* )
    | (?P<number> (?<![\w.$@:]) [0-9]+ (?:\.[0-9]+)? (?:[eE][+-]?[0-9]+)? (?![\w.]) )
    | (?P<open> ['"`] )
    """,
    re.VERBOSE | re.DOTALL,
)
_MYSQL_ESCAPE = re.compile(r"""\\(.)|''|\"\"""", re.DOTALL)
_OTHER_ESCAPE = re.compile(r"""\\(['"\\])|''|\"\"""", re.DOTALL)
_ESCAPED = {"0": "\0", "n": "\n", "r": "\r", "t": "\t", "b": "\b", "Z": "\x1a"}

# What only MySQL writes, in the text without its literals: a script whose URL was changed and whose
# text was not.
_MYSQL_ONLY = re.compile(
    r"`|\bon\s+duplicate\s+key\b|\binsert\s+(?:ignore|delayed|low_priority|high_priority)\b"
    r"|\b(?:from_unixtime|unix_timestamp|utc_date|utc_timestamp|utc_time|curdate|curtime|sysdate"
    r"|date_sub|date_add|date_format|ifnull|group_concat|last_insert_id)\s*\("
    r"|\bif\s*\(|\binterval\s+\S+\s+(?:second|minute|hour|day|week|month|quarter|year)\b"
    r"|\blimit\s+\S+\s*,|\breplace\s+into\b|\btruncate\s+\w|\binsert\s+into\s+\S+\s+set\b"
    r"|\bengine\s*=|\bauto_increment\b",
    re.I,
)
_NOT_IN_SQLITE = re.compile(r"\b(?:now|concat)\s*\(", re.I)
_PRIORITY = re.compile(r"^(\s*(?:insert|replace))\s+(?:delayed|low_priority|high_priority)\b", re.I)
_REPLACE = re.compile(r"^\s*replace(\s+into)?\b", re.I)
_SESSION = re.compile(
    r"^\s*set\s+(?:names|session|time_zone|sql_mode|character|autocommit)\b", re.I
)

_NUMBER_MARK = 99_000_000_000
_MARK = re.compile(r"'hm([0-9]+)lit'|\b99000([0-9]{6})\b")


class TextError(ValueError):
    """SQL text that cannot be read: a quote is never closed."""


class _Literal(str):
    """A quoted literal's value; a number stays a plain str."""

    __slots__ = ()


class _Shape:
    """What is known of the texts of one shape.

    pinned: the literals that are part of the shape after all (formats, intervals).
    """

    __slots__ = ("pinned", "variants")

    def __init__(self) -> None:
        self.pinned: tuple[int, ...] = ()
        self.variants: dict[tuple[str, ...], list[str | int]] = {}


class Translator:
    """Turns texts of a script into texts of one store.

    source: the SQL the script's URL promises.  target: that of the store.
    translated: how many shapes were worked out; untranslated: how many of them could not be read.
    """

    def __init__(self, source: str, target: str, unique_keys: UniqueKeys | None = None) -> None:
        self.source = source
        self.target = target
        self.translated = 0
        self.untranslated = 0
        self._unique_keys = unique_keys or (lambda table: [])
        self._escape = _MYSQL_ESCAPE if source == MYSQL else _OTHER_ESCAPE
        self._shapes: dict[tuple[str, ...], _Shape] = {}

    def fit(self, text: str) -> str:
        """*text* for the store; "" when there is nothing to do there.  Raises TextError."""
        if self.source == self.target == MYSQL:
            return _clean(text)
        pieces, literals = self._split(text)
        shape = self._shapes.get(pieces)
        if shape is None:
            if len(self._shapes) >= MOST_SHAPES:
                self._shapes.clear()
            shape = self._shapes[pieces] = _Shape()
        pinned = tuple([literals[index] for index in shape.pinned])
        template = shape.variants.get(pinned)
        if template is None:
            template = self._work_out(shape, pieces, literals)
        render = self._render
        return _clean(
            "".join(
                [part if isinstance(part, str) else render(literals[part]) for part in template]
            )
        )

    def _split(self, text: str) -> tuple[tuple[str, ...], list[str]]:
        """What stands around the literals, and the literals."""
        pieces: list[str] = []
        literals: list[str] = []
        start = position = 0
        while (found := _TOKEN.search(text, position)) is not None:
            position = found.end()
            kind = found.lastgroup
            if kind == "kept" or (kind == "double" and self.source != MYSQL):
                continue  # a name or a comment: part of the shape
            if kind == "open":
                raise TextError(f"a quote is never closed: {text[found.start() :][:40]}")
            value = found.group(kind or 0)
            if kind == "number":
                literals.append(value)
            else:
                literals.append(_Literal(self._unescape(value)))
            pieces.append(text[start : found.start()])
            # Shapes differ by the kinds of their literals too.
            pieces.append("0" if kind == "number" else "'")
            start = position
        pieces.append(text[start:].rstrip("; \t\r\n"))
        return tuple(pieces), literals

    def _unescape(self, value: str) -> str:
        if "\\" not in value and "''" not in value and '""' not in value:
            return value
        return self._escape.sub(_unescaped, value)

    def _render(self, literal: str) -> str:
        if not isinstance(literal, _Literal):
            return literal
        text = literal.replace("\0", "").replace("'", "''")
        if self.target == MYSQL:
            text = text.replace("\\", "\\\\")
        return f"'{text}'"

    def _work_out(
        self, shape: _Shape, pieces: tuple[str, ...], literals: list[str]
    ) -> list[str | int]:
        """The template of a shape not met before, with what of it must be pinned."""
        outside = " ".join(pieces[::2])
        untouched = [index // 2 if index % 2 else piece for index, piece in enumerate(pieces)]
        if not self._must_translate(outside):
            shape.variants[()] = untouched
            return untouched
        self.translated += 1
        source = MYSQL if self._is_mysql(outside) else self.source
        quoted = {index for index, value in enumerate(literals) if isinstance(value, _Literal)}
        pinned: set[int] = set()
        while True:
            marked = _marked(pieces, literals, pinned, self._render)
            done = translate(marked, source, self.target, self._unique_keys)
            if done is None:
                if quoted <= pinned:
                    # It cannot be read: the store will say what it thinks of it.
                    self.untranslated += 1
                    template, pinned = untouched, set()
                    break
                missing = quoted - pinned
            else:
                text, wanted = done
                template, found = _template(text)
                missing = (set(range(len(literals))) - found | wanted) - pinned if text else set()
                if not missing:
                    break
            pinned |= missing
        shape.pinned = tuple(sorted(pinned))
        if len(shape.variants) >= MOST_VARIANTS:
            shape.variants.clear()
        shape.variants[tuple([literals[index] for index in shape.pinned])] = template
        return template

    def _must_translate(self, outside: str) -> bool:
        if self.source != self.target:
            return True
        return self._is_mysql(outside)

    def _is_mysql(self, outside: str) -> bool:
        if _MYSQL_ONLY.search(outside):
            return True
        return self.source == SQLITE and _NOT_IN_SQLITE.search(outside) is not None


def translate(text: str, source: str, target: str, keys: UniqueKeys) -> tuple[str, set[int]] | None:
    """One statement from one SQL to another, "" when the other has no need of it.

    Gives with it the marked literals that must not be marked; None when *text* cannot be read.
    """
    import sqlglot
    from sqlglot.errors import SqlglotError

    if source == MYSQL and target != MYSQL:
        if _SESSION.match(text):
            return "", set()
        text = _PRIORITY.sub(r"\1", text)
    replaces = source == MYSQL and _REPLACE.match(text) is not None
    if replaces:
        text = _REPLACE.sub("INSERT INTO", text, count=1)
    try:
        tree = sqlglot.parse_one(text, dialect=source)
        wanted = set(_formats(tree))
        if source == MYSQL and target != MYSQL:
            tree = _Rewriter(target, keys).rewrite(tree, replaces)
        return tree.sql(dialect=target, unsupported_level=sqlglot.ErrorLevel.IGNORE), wanted
    except SqlglotError:
        return None


class _Rewriter:
    """MySQL's own ways said in another store's; what sqlglot does by itself is left to it.

    Times are local, as MySQL's session has them.
    """

    def __init__(self, target: str, keys: UniqueKeys) -> None:
        from sqlglot import exp

        self.exp = exp
        self.sqlite = target == SQLITE
        self.keys = keys

    def rewrite(self, tree: Any, replaces: bool) -> Any:  # nodes of sqlglot
        exp = self.exp
        if isinstance(tree, exp.TruncateTable) and self.sqlite:
            return exp.Delete(this=tree.expressions[0])
        # From the leaves up: what replaces a node is not looked at again.
        for node in reversed(list(tree.walk())):
            replacement = self._node(node)
            if replacement is not node:
                node.replace(replacement)
        if isinstance(tree, exp.Insert):
            self._conflicts(tree, replaces)
        if isinstance(tree, exp.Create):
            self._table(tree)
        if isinstance(tree, exp.Delete | exp.Update) and tree.args.get("limit"):
            self._limit(tree)
        return tree

    def _node(self, node: Any) -> Any:
        exp = self.exp
        if isinstance(node, exp.Anonymous):
            name = str(node.this).upper()
            if name in ("NOW", "SYSDATE", "LOCALTIME", "LOCALTIMESTAMP"):
                return self._now()
            if name == "UNIX_TIMESTAMP":
                return self._epoch(node.expressions)
            if name == "LAST_INSERT_ID":
                return self._function("last_insert_rowid" if self.sqlite else "lastval")
            return node
        if isinstance(node, exp.CurrentTimestamp):
            in_definition = isinstance(node.parent, exp.DefaultColumnConstraint)
            return node if in_definition else self._now()
        if isinstance(node, exp.UtcTimestamp):
            return self._utc("datetime", "TIMESTAMP")
        if isinstance(node, exp.UtcDate):
            return self._utc("date", "DATE")
        if isinstance(node, exp.UtcTime):
            return self._utc("time", "TIME")
        if isinstance(node, exp.UnixToTime):
            return self._from_epoch(node)
        if not self.sqlite:
            return self._extracted(node)
        if isinstance(node, exp.CurrentDate):
            return self._call("date", "now", "localtime")
        if isinstance(node, exp.CurrentTime):
            return self._call("time", "now", "localtime")
        if isinstance(node, exp.Left):
            return self._function("substr", node.this, exp.Literal.number(1), node.expression)
        if isinstance(node, exp.DateAdd | exp.DateSub):
            return self._moved(
                node.this, node.expression, node.args.get("unit"), isinstance(node, exp.DateSub)
            )
        if isinstance(node, exp.Add | exp.Sub) and isinstance(node.expression, exp.Interval):
            interval = node.expression
            return self._moved(
                node.this, interval.this, interval.args.get("unit"), isinstance(node, exp.Sub)
            )
        return self._part_of_time(node)

    def _now(self) -> Any:
        if self.sqlite:
            return self._call("datetime", "now", "localtime")
        return self.exp.CurrentTimestamp()

    def _utc(self, function: str, kind: str) -> Any:
        exp = self.exp
        if self.sqlite:
            return self._call(function, "now")
        return exp.cast(
            exp.AtTimeZone(this=exp.CurrentTimestamp(), zone=exp.Literal.string("UTC")), kind
        )

    def _epoch(self, arguments: list[Any]) -> Any:
        exp = self.exp
        if self.sqlite:
            moment = [*arguments, *_strings(exp, "utc")] if arguments else _strings(exp, "now")
            return exp.cast(self._function("strftime", *_strings(exp, "%s"), *moment), "INTEGER")
        moment = arguments[0] if arguments else exp.CurrentTimestamp()
        if arguments and moment.is_string:
            moment = exp.cast(moment, "TIMESTAMPTZ")
        return exp.cast(exp.Extract(this=exp.var("EPOCH"), expression=moment), "BIGINT")

    def _from_epoch(self, node: Any) -> Any:
        exp = self.exp
        form = node.args.get("format")
        if self.sqlite:
            moment = [node.this, *_strings(exp, "unixepoch", "localtime")]
            if form is None:
                return self._function("datetime", *moment)
            return self._function("strftime", form, *moment)
        if form is None:
            return node
        return exp.TimeToStr(this=exp.UnixToTime(this=node.this), format=form)

    def _moved(self, moment: Any, count: Any, unit: Any, back: bool) -> Any:
        """`datetime(moment, -(count) || ' days')`; date() when both sides are whole days."""
        exp = self.exp
        name = str(unit.this if unit is not None else "DAY").upper()
        times, modifier = {"WEEK": (7, "DAY"), "QUARTER": (3, "MONTH")}.get(name, (1, name))
        if count.is_string:
            count = exp.Literal.number(count.this)
        if times != 1:
            count = exp.Mul(this=exp.paren(count), expression=exp.Literal.number(times))
        if back:
            count = exp.Neg(this=exp.paren(count))
        whole_days = isinstance(moment, exp.Date | exp.CurrentDate) or (
            isinstance(moment, exp.Anonymous) and str(moment.this) == "date"
        )
        function = "date" if whole_days and modifier in ("DAY", "MONTH", "YEAR") else "datetime"
        text = exp.DPipe(
            this=exp.paren(count), expression=exp.Literal.string(f" {modifier.lower()}s")
        )
        return self._function(function, moment, text)

    def _part_of_time(self, node: Any) -> Any:
        exp = self.exp
        code = {
            exp.Hour: "%H", exp.Minute: "%M", exp.Second: "%S", exp.Day: "%d",
            exp.DayOfMonth: "%d", exp.Month: "%m", exp.Year: "%Y", exp.DayOfYear: "%j",
        }.get(type(node))  # fmt: skip
        if code is None:
            return node
        return exp.cast(self._function("strftime", *_strings(exp, code), node.this), "INTEGER")

    def _extracted(self, node: Any) -> Any:
        """HOUR(x) and its like for PostgreSQL; a text that time is added to is a time."""
        exp = self.exp
        if isinstance(node, exp.DateAdd | exp.DateSub) and node.this.is_string:
            node.set("this", exp.cast(node.this, "TIMESTAMP"))
            return node
        parts = (exp.Hour, exp.Minute, exp.Second, exp.Day, exp.DayOfMonth, exp.Month, exp.Year)
        if not isinstance(node, parts):
            return node
        name = "DAY" if isinstance(node, exp.DayOfMonth) else type(node).__name__.upper()
        moment = exp.cast(node.this, "TIMESTAMP")
        return exp.cast(exp.Extract(this=exp.var(name), expression=moment), "INT")

    def _table(self, tree: Any) -> None:
        """CREATE TABLE without what belongs to MySQL's engines; plain indexes are left out."""
        exp = self.exp
        tree.set("properties", None)
        if self.sqlite:
            # An AUTOINCREMENT column is INTEGER, not INTEGER(11).
            for kind in tree.find_all(exp.DataType):
                kind.set("expressions", [])
        for item in list(tree.find_all(exp.IndexColumnConstraint)):
            item.pop()
        for item in tree.find_all(exp.UniqueColumnConstraint):
            if isinstance(item.this, exp.Schema):
                item.this.set("this", None)

    def _conflicts(self, tree: Any, replaces: bool) -> None:
        """INSERT IGNORE, REPLACE and ON DUPLICATE KEY UPDATE."""
        exp = self.exp
        table = tree.find(exp.Table)
        columns = _columns(exp, tree)
        conflict = tree.args.get("conflict")
        if replaces and self.sqlite:
            tree.set("alternative", "REPLACE")
            return
        if tree.args.get("ignore") and not self.sqlite:
            tree.set("ignore", None)
            tree.set("conflict", exp.OnConflict(action=exp.var("DO NOTHING")))
            return
        if conflict is None and not replaces:
            return
        key = [] if self.sqlite else self._key(table.name, columns)
        if not self.sqlite and not key:
            tree.set("conflict", None)
            return
        if replaces:
            updates = [
                exp.EQ(this=exp.column(name), expression=_excluded(exp, name))
                for name in columns
                if name not in key
            ]
        else:
            updates = [self._update(item, table.name) for item in conflict.expressions]
        tree.set(
            "conflict",
            exp.OnConflict(
                conflict_keys=[exp.to_identifier(name) for name in key],
                action=exp.var("DO UPDATE" if updates else "DO NOTHING"),
                expressions=updates,
            ),
        )

    def _update(self, item: Any, table: str) -> Any:
        """`b = b + VALUES(c)`: the old b is the table's, the new c is excluded's."""
        exp = self.exp

        def side(node: Any) -> Any:
            if isinstance(node, exp.Anonymous) and str(node.this).upper() == "VALUES":
                return _excluded(exp, node.expressions[0].name)
            if isinstance(node, exp.Column) and not node.table:
                return exp.column(node.name, table=table)
            return node

        return exp.EQ(this=exp.column(item.this.name), expression=item.expression.transform(side))

    def _key(self, table: str, columns: list[str]) -> list[str]:
        keys = self.keys(table)
        if not columns:
            return keys[0] if keys else []
        there = {name.lower() for name in columns}
        return next((key for key in keys if {name.lower() for name in key} <= there), [])

    def _limit(self, tree: Any) -> None:
        """`DELETE … LIMIT n` as a list of rows."""
        exp = self.exp
        row = exp.column("rowid" if self.sqlite else "ctid")
        table = tree.find(exp.Table)
        rows = exp.select(row.copy()).from_(table.copy())
        for part in ("where", "order", "limit"):
            if tree.args.get(part) is not None:
                rows.set(part, tree.args[part].copy())
                tree.set(part, None)
        tree.set("where", exp.Where(this=exp.In(this=row, query=exp.Subquery(this=rows))))

    def _call(self, function: str, *texts: str) -> Any:
        return self._function(function, *_strings(self.exp, *texts))

    def _function(self, name: str, *arguments: Any) -> Any:
        return self.exp.Anonymous(this=name, expressions=list(arguments))


def _strings(exp: Any, *texts: str) -> list[Any]:
    return [exp.Literal.string(text) for text in texts]


def _excluded(exp: Any, name: str) -> Any:
    return exp.column(name, table="excluded")


def _columns(exp: Any, tree: Any) -> list[str]:
    """The columns an INSERT names."""
    schema = tree.this
    return [item.name for item in schema.expressions] if isinstance(schema, exp.Schema) else []


def _formats(tree: Any) -> Iterator[int]:
    """The marked texts whose content matters: formats of time, intervals, JSON paths."""
    from sqlglot import exp

    for literal in tree.find_all(exp.Literal):
        found = _MARK.fullmatch(f"'{literal.this}'") if literal.is_string else None
        if found is None or found[1] is None:
            continue
        inside = literal.find_ancestor(exp.Interval, exp.JSONExtract, exp.JSONExtractScalar)
        if literal.arg_key in ("format", "zone", "unit") or inside is not None:
            yield int(found[1])


def _marked(
    pieces: tuple[str, ...],
    literals: list[str],
    pinned: set[int],
    render: Callable[[str], str],
) -> str:
    """The text with a mark in the place of each literal that is not pinned."""
    out: list[str] = []
    for index, piece in enumerate(pieces):
        if index % 2 == 0:
            out.append(piece)
            continue
        number = index // 2
        if number in pinned:
            out.append(render(literals[number]))
        elif isinstance(literals[number], _Literal):
            out.append(f"'hm{number}lit'")
        else:
            out.append(str(_NUMBER_MARK + number))
    return "".join(out)


def _template(text: str) -> tuple[list[str | int], set[int]]:
    """*text* cut at its marks; the marks that were found where they can be replaced."""
    template: list[str | int] = []
    found: set[int] = set()
    start = 0
    for mark in _MARK.finditer(text):
        number = int(mark[1] or mark[2])
        found.add(number)
        template += [text[start : mark.start()], number]
        start = mark.end()
    template.append(text[start:])
    # A mark inside another literal cannot be replaced by a quoted text.
    spoilt = re.findall(
        r"hm([0-9]+)lit", "".join(part for part in template if isinstance(part, str))
    )
    return template, found - set(map(int, spoilt))


def _unescaped(found: re.Match[str]) -> str:
    char = found[1]
    if char is None:
        return found.group()[0]
    return _ESCAPED.get(char, char)


def _clean(text: str) -> str:
    """Bytes that are no UTF-8 become U+FFFD: no store takes them, and a row is worth more."""
    if text.isascii():
        return text
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
