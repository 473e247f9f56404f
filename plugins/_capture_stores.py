"""The stores of sipcapture: a sink for each database, and who looks after its tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from homerd.api import Archive, ConfigError, RetryLater, Worker
from homerd_plugins import _homer7
from homerd_plugins._archive_stores import StoreTables, has_tables, tables_of
from homerd_plugins._archiving import ArchivingKeeper, Exporter
from homerd_plugins._flatstore import AnyAddress, FileAddress, FlatSink, address_in
from homerd_plugins._homer5 import REPORT_COLUMNS, SIP_COLUMNS, Column, is_family
from homerd_plugins._homer_app import tell_homer_app
from homerd_plugins._reader import Reader, reader_of
from homerd_plugins._refilling import Refill
from homerd_plugins._serversink import ServerSink, one_line
from homerd_plugins._stores import (
    ENVIRONMENT,
    POSTGRES,
    SQLITE,
    Address,
    sink_for,
    store_of_url,
    without_password,
)
from homerd_plugins._tables import HOMER5, HOMER7, CaptureMode, CaptureSink, Mode, TableName
from homerd_plugins._upkeep import AGE, SIZE, Kept, Upkeep, remove_old

MODULE, DEFAULT_MODE = "sipcapture", "default"
SIP, REPORT, SEVEN = 0, 1, 2  # the sinks' layouts


class Stores:
    """What the capture modes write to.

    modes: each with its schema.  columns: names the operator gave, by key; widths: of text ones.
    shrinks: whether files are made such that they can give back room.  steps: how long partitions
    of Homer 7 are.  archive: the folder for what retention removes.
    """

    def __init__(
        self,
        modes: Sequence[CaptureMode],
        columns: Mapping[str, str],
        create_tables: bool,
        *,
        widths: Mapping[str, int] | None = None,
        shrinks: bool = False,
        steps: Mapping[str, int] | None = None,
        archive: str = "",
    ) -> None:
        self.modes = modes
        self.archive = archive
        self.create_tables = create_tables
        self.shrinks = shrinks
        self.steps = steps
        self.sinks: dict[AnyAddress, Any] = {}
        self._layouts = [
            [
                column._replace(
                    renamed=columns.get(column.key, ""),
                    width=(widths or {}).get(column.key, column.width),
                )
                for column in layout
            ]
            for layout in (SIP_COLUMNS, REPORT_COLUMNS)
        ]
        self._layouts.append(list(_homer7.COLUMNS))
        self._used: list[tuple[CaptureSink, TableName]] = []
        self._upkeep: Upkeep | None = None

    def open(self, worker: Worker) -> dict[str, Mode]:
        """Add a sink for each database; gives the modes at work."""
        opened = {}
        for mode in self.modes:
            address = address_of(mode)
            # What is only looked at goes nowhere: the cases of a script have an SQLite file for it.
            if mode.schema == HOMER7 and address.store != POSTGRES and worker.deliver:
                raise ConfigError(
                    f"{parameter_of(mode)}: schema homer7 is for PostgreSQL: postgres://…"
                )
            if address not in self.sinks:
                self.sinks[address] = worker.add_sink(self._sink(mode))
            opened[mode.name] = Mode(mode, self.sinks[address])
        return opened

    def use(self, sink: CaptureSink, template: TableName) -> None:
        """Note that the script stores in such tables: they are made ahead."""
        self._used.append((sink, template))

    def start_upkeep(self, kept: Kept, homer_app: str = "") -> None:
        """Look after tables each hour; SQLite needs it for nothing but retention.

        homer_app: the database of homer-app, which is told of the tables.
        """
        keepers = self._keepers()
        chores = [lambda: tell_homer_app(homer_app)] if homer_app else []
        if kept.days or kept.size or chores or any(address.store != SQLITE for address in keepers):
            places = list(keepers)
            self._upkeep = Upkeep(
                list(keepers.values()),
                kept,
                lambda place, times: self._needed(places[place], times),
                chores,
            )
            self._upkeep.start()

    def stop_upkeep(self) -> None:
        """End that."""
        if self._upkeep is not None:
            self._upkeep.stop()

    def remove_old(self, kept: Kept, *, dry: bool) -> Iterator[tuple[str, str, str]]:
        """Remove what is too old or too much in each store.

        Gives (store, what was or would be removed, why it was not); one that cannot be looked
        after, as a whole, stops no other.
        """
        for address, make in self._keepers().items():
            keeper = make()
            try:
                keeper.connect()
                for removal in remove_old(keeper, kept, time.time(), dry=dry):
                    yield address.shown, str(removal), removal.fault
            except (ConfigError, RetryLater) as error:
                yield address.shown, "", str(error)
            except keeper.errors as error:
                yield address.shown, "", one_line(error)
            finally:
                keeper.close()

    def readers(self, url: str = "") -> list[Reader]:
        """Who reads messages back, for each database, or for that of *url* alone."""
        if url:
            try:
                address = Address.of(url)
            except ValueError as error:
                raise ConfigError(f"{without_password(url)}: {error}") from None
            return [reader_of(address, address.shown.removeprefix("sqlite://"), self._layouts[SIP])]
        found: dict[Address, Reader] = {}
        for mode in self.modes:
            address = address_of(mode)
            if isinstance(address, Address) and address not in found:
                found[address] = reader_of(address, parameter_of(mode), self._layouts[SIP])
        return list(found.values())

    def samples(self) -> Iterator[tuple[str, dict[str, str], float]]:
        """What was done to rows and tables."""
        for sink in self.sinks.values():
            labels = {"sink": sink.name}
            if isinstance(sink, FlatSink):
                yield "homerd_sipcapture_replayed_total", labels, sink.replayed
            if not isinstance(sink, ServerSink):
                continue
            for column, count in list(sink.truncated.items()):  # its thread may add one
                cut = labels | {"column": column}
                yield "homerd_sipcapture_truncated_total", cut, count
            yield "homerd_sipcapture_mended_cells_total", labels, sink.mended
            yield "homerd_sipcapture_replayed_total", labels, sink.replayed
            partitions = getattr(sink, "partitions", None)
            if partitions is not None:
                yield "homerd_sipcapture_odd_clocks_total", labels, partitions.odd_clocks
                yield "homerd_sipcapture_moved_rows_total", labels, partitions.moved
                yield "homerd_sipcapture_partitions_put_off_total", labels, partitions.put_off
        if self._upkeep is not None:
            for why in (AGE, SIZE):
                dropped = self._upkeep.dropped[why]
                yield "homerd_sipcapture_dropped_tables_total", {"reason": why}, dropped
            yield "homerd_sipcapture_upkeep_failures_total", {}, self._upkeep.failures
            yield "homerd_sipcapture_moved_rows_total", {"sink": "upkeep"}, self._upkeep.moved

    def archived(self, names: Sequence[str] = ()) -> list[Exporter]:
        """Each database of these capture modes, or of all, to be exported from."""
        for name in names:
            self._mode(name)
        first: dict[AnyAddress, CaptureMode] = {}
        for mode in self.modes:
            # What has no tables is no fault unless it is asked for.
            if mode.name in names or (not names and has_tables(address_of(mode))):
                first.setdefault(address_of(mode), mode)
        return [Exporter(self._tables(mode)) for mode in first.values() or self.modes[:1]]

    def refill(self, name: str) -> Refill:
        """What brings archived rows into the database of a capture mode."""
        mode = self._mode(name)
        return Refill(self._tables(mode), lambda layout: self._sink(mode, [layout]), self._layouts)

    def _mode(self, name: str) -> CaptureMode:
        for mode in self.modes:
            if mode.name == name:
                return mode
        known = ", ".join(mode.name for mode in self.modes)
        raise ConfigError(f'no capture mode "{name}", known: {known}')

    def _tables(self, mode: CaptureMode) -> StoreTables:
        return tables_of(mode.name, parameter_of(mode), address_of(mode), self._layouts)

    def _sink(
        self, mode: CaptureMode, layouts: Sequence[Sequence[Column]] = (), *, keeps: bool = False
    ) -> Any:
        address = address_of(mode)
        name = MODULE if mode.name == DEFAULT_MODE else f"{MODULE}.{mode.name}"
        if isinstance(address, FileAddress):
            return FlatSink(
                name, address, self._layouts, source=parameter_of(mode), writes=not keeps
            )
        options: dict[str, Any] = {}
        if address.store == SQLITE:
            options["shrinks"] = self.shrinks
        elif address.store == POSTGRES:
            options["steps"] = self.steps
        return sink_for(
            address,
            name,
            layouts or self._layouts,
            create_tables=self.create_tables,
            source=parameter_of(mode),
            keeps=keeps,
            **options,
        )

    def _keeper(self, mode: CaptureMode) -> Any:
        sink = self._sink(mode, keeps=True)
        if not self.archive or not has_tables(address_of(mode)):
            return sink
        return ArchivingKeeper(sink, self._tables(mode), Archive(Path(self.archive)))

    def _keepers(self) -> dict[AnyAddress, Callable[[], Any]]:
        found: dict[AnyAddress, Callable[[], Any]] = {}
        for mode in self.modes:
            found.setdefault(address_of(mode), lambda mode=mode: self._keeper(mode))
        return found

    def _needed(self, address: AnyAddress, times: Sequence[int]) -> Iterator[tuple[str, int]]:
        """Tables of a store at these times, as far as the script has used their names."""
        sink = self.sinks[address]
        templates = {name.template for where, name in list(self._used) if where is sink}
        for mode in self.modes:
            if address_of(mode) == address and mode.schema == HOMER5:
                templates |= {name for name in mode.tables if "%" in name}
        for template in sorted(templates):
            name = TableName(template)
            if 3600 <= name.seconds <= 86400:
                yield from ((table, SIP) for table in dict.fromkeys(map(name.at, times)))


def known_families(days: Mapping[str, int], named: Container[str]) -> Callable[[str], bool]:
    """Whether a family of tables is Homer's, has *days* of its own, or is *named* by the script."""

    def is_known(family: str) -> bool:
        return (
            family in days
            or family.removesuffix("_all") in days
            or family in named
            or is_family(family)
            or _homer7.is_homer7_table(family)
            or _homer7.is_homer7_table(family.removesuffix("_default"))
        )

    return is_known


def address_of(mode: CaptureMode) -> AnyAddress:
    """The mode's database, or folder of files."""
    try:
        return address_in(store_of_url(mode.db_url))
    except ValueError as error:
        raise ConfigError(f"{parameter_of(mode)}: {error}") from None


def parameter_of(mode: CaptureMode) -> str:
    """The modparam that names the mode's database; its password is nobody's to see."""
    store = store_of_url(mode.db_url)
    url = without_password(store)
    if store != mode.db_url:
        return f'{ENVIRONMENT}="{url}"'
    if mode.name == DEFAULT_MODE:
        return f'modparam("sipcapture", "db_url", "{url}")'
    return f'modparam("sipcapture", "capture_mode", "{mode.name}=>db_url={url}…")'
