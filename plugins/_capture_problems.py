"""What of sipcapture's parameters does not go together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from homerd.api import Outline, Problem
from homerd_plugins import _capture_raw
from homerd_plugins._flatstore import address_in
from homerd_plugins._homer_app import address_of_homer_app
from homerd_plugins._stores import POSTGRES, store_of_url, without_password
from homerd_plugins._tables import HOMER7

if TYPE_CHECKING:
    from homerd_plugins.sipcapture import SipCapture

ENTRY_EVENT = "sipcapture:request"
MAIN_ROUTE = ("", "sip")  # hep_route that means none of its own


def problems(plugin: SipCapture, outline: Outline) -> Iterator[Problem]:
    """What is wrong, and what is odd, with the script as a whole."""
    if plugin.nonsip_hook and ENTRY_EVENT not in outline.events:
        yield Problem(
            f"nonsip_hook is 1, and there is no event_route[{ENTRY_EVENT}]",
            parameter="nonsip_hook",
            help=f"add event_route[{ENTRY_EVENT}] {{ return 1; }}, or leave nonsip_hook at 0",
        )
    if ENTRY_EVENT in outline.events and not plugin.nonsip_hook:
        yield Problem(
            f"event_route[{ENTRY_EVENT}] is never run: nonsip_hook is 0",
            event=ENTRY_EVENT,
            help='modparam("sipcapture", "nonsip_hook", 1)',
            warning=True,
        )
    if plugin.hep_route not in (*MAIN_ROUTE, *outline.routes):
        yield Problem(
            f"hep_route is {plugin.hep_route}, and there is no route[{plugin.hep_route}]",
            parameter="hep_route",
            help=f"add route[{plugin.hep_route}] {{ hep_resume_sip(); }}",
        )
    for name, highest in (("insert_retries", 500), ("insert_retry_timeout", 300)):
        if not 0 <= getattr(plugin, name) <= highest:
            yield Problem(
                f"{name} is {getattr(plugin, name)}, expected 0 to {highest}", parameter=name
            )
    yield from _capture_raw.problems(plugin)
    for mode in plugin.capture_mode:
        if mode.choice.how == "hash" and mode.hash_source is None:
            yield Problem(
                f'capture mode "{mode.name}" does not say what hash is taken of: the Call-ID',
                parameter="capture_mode",
                warning=True,
            )
    if plugin.homer_app_db:
        try:
            address_of_homer_app(plugin.homer_app_db)
        except ValueError as error:
            yield Problem(f"homer_app_db: {error}", parameter="homer_app_db")
    if plugin.capture_on:  # else no store is opened, and a script may name one that homerd has not
        yield from _stores(plugin)


def _stores(plugin: SipCapture) -> Iterator[Problem]:
    """Addresses that cannot be read, and stores that have no tables of Homer 7."""
    named = [("db_url", "", plugin.db_url, plugin.schema)]
    named += [
        ("capture_mode", mode.written, mode.db_url, mode.schema or plugin.schema)
        for mode in plugin.capture_mode
    ]
    for parameter, written, url, schema in named:
        store = store_of_url(url)
        try:
            stores = {address_in(store).store}
        except ValueError as error:
            told = f'db_url of capture mode "{written.partition("=>")[0]}"' if written else "db_url"
            yield Problem(f"{told}: {error}", parameter=parameter, value=written)
            continue
        if store != url:
            with contextlib.suppress(ValueError):
                stores.add(address_in(url).store)
        if schema == HOMER7 and POSTGRES not in stores:
            # Of homer-app 7 there is no other; elsewhere nothing would ever read these tables.
            yield Problem(
                f"schema homer7 is for PostgreSQL alone, got {without_password(url)}",
                parameter=parameter if written else "schema",
                help="use postgres://user:password@host/homer_data, or schema homer5",
                value=written,
            )
