"""The script's globals that mean something to the daemon: what it listens on, how much it logs.

A script written for Kamailio keeps its other globals: every core parameter of Kamailio 5.6 is known
here, and one without a meaning for a capture server is ignored.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from homerd.core import live
from homerd.core.agents import Agent, check_agents, parse_agent
from homerd.lang.diagnostics import did_you_mean
from homerd.plugin.hookspecs import Capture

if TYPE_CHECKING:
    from homerd.lang.nodes import Global

DEFAULT_PORT = 9060
METRICS_PORT = 9096
RECEIVE_BUFFER = 64 << 20
SPOOL_LIMIT = 1 << 30
RTP_REPORT_SECONDS = 20


@dataclass(frozen=True, slots=True)
class Listen:
    """One socket to open.

    scheme: "udp", "tcp", "tls", "ws" or "wss", "collector_udp", "collector_tcp" or "collector_tls"
    for SIP that is answered.  host: an address, a name, an interface, "*" for
    every address.
    text: as the operator wrote it.
    """

    scheme: str
    host: str
    port: int
    text: str


OVER_TLS = frozenset({"tls", "wss", "collector_tls"})
COLLECTOR = "collector"
COLLECTOR_PORTS = {"collector_udp": 5060, "collector_tcp": 5060, "collector_tls": 5061}
TLS_VERSIONS = {
    "1.0": ssl.TLSVersion.TLSv1,
    "1.1": ssl.TLSVersion.TLSv1_1,
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
}


@dataclass(frozen=True, slots=True)
class Tls:
    """What TLS listeners are opened with: files in PEM form.

    private_key: "" when the certificate's file has it.  ca_list: who may sign the certificates of
    clients.  verify: a client's certificate must be signed by one of them; require: it must have
    one.  least: the lowest version, of TLS_VERSIONS.  handshake_seconds: how long it may take.
    """

    certificate: str = ""
    private_key: str = ""
    ca_list: str = ""
    verify: int = 0
    require: int = 0
    least: str = "1.2"
    handshake_seconds: int = 30


@dataclass(frozen=True, slots=True)
class Settings:
    """The globals, converted; a field is the default when the script does not set it.

    live: what is captured live.  user, group: what the daemon becomes when its sockets are open.
    debug: log level of script lines, None when not set.
    receive_buffer: bytes the kernel keeps for each UDP socket.
    agents: who may send; () for everybody.
    tcp_idle_seconds, tcp_connections: when a connection is closed, how many there may be.
    spool_dir, spool_limit: where batches wait for a store that is away, "" for the usual place, and
    how many bytes of each store may wait there, 0 for none.
    metrics: where /metrics and /healthz are served over HTTP; None: nowhere.
    rtp_reports: how often captured RTP is reported, in seconds; 0: it is not looked at.
    collector_stores: reports that a collector takes go to the stores, not through the script.
    plugin_error_budget: errors of one module in a minute after which it is left out, 0 for never.
    plugin_block_seconds: after so long a module that keeps the loop waiting is interrupted, 0 for
    never.
    """

    listen: tuple[Listen, ...] = ()
    live: tuple[Capture, ...] = ()
    user: str = ""
    group: str = ""
    debug: int | None = None
    log_prefix_mode: int = 0
    max_while_loops: int = 100
    max_recursive_level: int = 256
    return_mode: int = 0
    receive_buffer: int = RECEIVE_BUFFER
    tcp_connections: int = 2048
    tcp_idle_seconds: int = 600
    tls: Tls = Tls()
    agents: tuple[Agent, ...] = ()
    workers: int = 1
    metrics: Listen | None = None
    spool_dir: str = ""
    spool_limit: int = SPOOL_LIMIT
    rtp_reports: int = 0
    collector_stores: bool = False
    plugin_error_budget: int = 100
    plugin_block_seconds: float = 2.0


def parse(globals: Iterable[Global]) -> tuple[Settings, list[tuple[Global, str]]]:
    """The settings, and each global that is wrong with what is wrong about it.

    A hint stands on a second line.
    """
    settings = Settings()
    problems: list[tuple[Global, str]] = []
    sockets: list[Global] = []
    captured = live.Assembly(_number)
    port = DEFAULT_PORT
    no_tcp = False
    for item in globals:
        name = item.name.lower()
        try:
            if name in ("listen", "socket"):
                sockets.append(item)
            elif name in live.SETTINGS:
                captured.set(item)
            elif name == "port":
                port = _number(item.value, 1, 65535)
            elif name == "disable_tcp":
                no_tcp = bool(_number(item.value))
            elif name in _FIELDS:
                field, convert = _FIELDS[name]
                settings = replace(settings, **{field: convert(item.value)})  # type: ignore[arg-type]
            elif name == "agent":
                agent = parse_agent(item.value)
                check_agents(settings.agents, agent)
                settings = replace(settings, agents=(*settings.agents, agent))
            elif name in _TLS_FIELDS:
                field, convert = _TLS_FIELDS[name]
                tls = replace(settings.tls, **{field: convert(item.value)})  # type: ignore[arg-type]
                settings = replace(settings, tls=tls)
            elif name not in _IGNORED:
                raise ValueError(_unknown(item.name))
        except ValueError as error:
            problems.append((item, str(error)))
    listen: list[Listen] = []
    for item in sockets:
        try:
            value, captures = live.split(str(item.value))
            captured.add(captures)
            if captures and not value:
                continue
            asked = parse_listen(value, port, no_tcp=no_tcp)
            if any(each.scheme in OVER_TLS for each in asked):
                _check_tls(settings.tls)
            listen += asked
        except ValueError as error:
            problems.append((item, str(error)))
    if not sockets:
        listen = parse_listen("0.0.0.0", port, no_tcp=no_tcp)
    for item, message in captured.unused():
        problems.append((item, message))
    found = tuple(dict.fromkeys(listen))
    return replace(settings, listen=found, live=captured.captures()), problems


def parse_listen(value: str, port: int = DEFAULT_PORT, *, no_tcp: bool = False) -> list[Listen]:
    """The sockets that `listen = value` asks for; ValueError says what is wrong.

    Without a scheme both udp and tcp are meant, without a port *port*; a collector's is SIP's own.
    """
    # sock { sock } [ "advertise" addr ] [ "name" STRING ]
    value = _AFTER_SOCKETS.split(value, maxsplit=1)[0]
    words = re.sub(r"\s*,\s*|(?<!:)\s*:\s*(?!:)", lambda each: each[0].strip(), value).split()
    if not words:
        raise ValueError("expected [udp:|tcp:|tls:|ws:|wss:]address[:port], got nothing")
    found: list[Listen] = []
    for word in words:
        scheme, rest = _scheme(word)
        hosts, number = _host_and_port(word, rest, 0 if scheme.startswith(COLLECTOR) else port)
        schemes: tuple[str, ...] = (scheme,)
        if scheme in ("", COLLECTOR):
            prefix = f"{scheme}_" if scheme else ""
            schemes = (f"{prefix}udp",) if no_tcp else (f"{prefix}udp", f"{prefix}tcp")
        found += [
            Listen(each, host, number or COLLECTOR_PORTS[each], word)
            for host in hosts
            for each in schemes
        ]
    return found


_AFTER_SOCKETS = re.compile(r"\s+(?:advertise|ADVERTISE|name)\b")
_SCHEMES = {
    "udp": "udp",
    "tcp": "tcp",
    "tls": "tls",
    "hep_udp": "udp",
    "hep_tcp": "tcp",
    "hep_tls": "tls",
    "ws": "ws",
    "wss": "wss",
    "hep_ws": "ws",
    "hep_wss": "wss",
    COLLECTOR: COLLECTOR,
    **{name: name for name in COLLECTOR_PORTS},
    "*": "",
}
_NOT_SPOKEN = ("sctp", "bin")


def _scheme(word: str) -> tuple[str, str]:
    name, colon, rest = word.partition(":")
    name = name.lower()
    if not colon or word.startswith("["):
        return "", word
    if name in _NOT_SPOKEN:
        raise ValueError(f'"{word}": homerd listens on udp, tcp, tls, ws and wss, not on {name}')
    # "*:9060" is every address, "*:10.0.0.1:9060" every protocol.
    if name in _SCHEMES and (name != "*" or ":" in rest):
        return _SCHEMES[name], rest
    # host:port has one colon; the first piece of an IPv6 address has digits of base 16 alone.
    if re.search(r"[g-z_]", name) and (":" in rest or rest.startswith("[")):
        known = [*(each for each in _SCHEMES if each != "*"), "raw", "ipip"]
        hint = did_you_mean(name, known)
        told = f'"{word}": unknown protocol "{name}", expected {", ".join(known)}'
        raise ValueError(f"{told}\n{hint}" if hint else told)
    return "", word


def _host_and_port(word: str, text: str, port: int) -> tuple[list[str], int]:
    """`host`, `host:port`, `[v6]`, `[v6]:port`, a bare v6 address, `(host, host):port`."""
    if text.startswith(("[", "(")):
        host, closing, rest = text[1:].partition("]" if text[0] == "[" else ")")
        if not closing or (rest and not rest.startswith(":")):
            raise ValueError(f'"{word}": expected address:port, the bracket is not closed')
        number = rest[1:]
    elif text.count(":") > 1:
        host, number = text, ""
    else:
        host, _, number = text.partition(":")
    hosts = [item.strip("[] ") for item in host.split(",")]
    if not all(hosts):
        raise ValueError(f'"{word}": expected an address before the port')
    return hosts, port if number in ("", "*") else _port(word, number)


def _port(word: str, text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise ValueError(f'"{word}": expected a port from 1 to 65535, got "{text}"')
    return int(text)


_WORDS = {
    **dict.fromkeys(("yes", "true", "on", "enable"), 1),
    **dict.fromkeys(("no", "false", "off", "disable"), 0),
}
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def _number(value: str | int, least: int = -(1 << 31), most: int = (1 << 31) - 1) -> int:
    try:
        number = _WORDS[value] if value in _WORDS else int(str(value).replace(" ", ""), 0)
    except ValueError:
        raise ValueError(f'expected a number, got "{value}"') from None
    if not least <= number <= most:
        raise ValueError(f"expected a number from {least} to {most}, got {number}")
    return number


def _bytes(value: str | int) -> int:
    match = re.fullmatch(r"(\d+)\s*([kKmMgG]?)", str(value))
    if match is None:
        raise ValueError(f'expected bytes, such as "64M", got "{value}"')
    return int(match[1]) * _UNITS[match[2].lower()]


def _from(least: int) -> Callable[[str | int], int]:
    return lambda value: _number(value, least)


def _seconds(value: str | int) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 86_400:
        raise ValueError(f'expected seconds, 0 or more, got "{value}"')
    return seconds


def _interval(value: str | int) -> int:
    """Seconds between two reports; `yes` for the usual time, `no` for none."""
    try:
        seconds = _number(value)
    except ValueError:
        seconds = -1
    if seconds == 1:  # yes
        return RTP_REPORT_SECONDS
    if seconds and not 5 <= seconds <= 3600:
        raise ValueError(f'expected yes, no, or seconds from 5 to 3600, got "{value}"')
    return seconds


def _collector_mode(value: str | int) -> bool:
    """`forward`: reports go through the script; `store`: to the stores."""
    if value not in ("forward", "store"):
        raise ValueError(f'expected forward or store, got "{value}"')
    return value == "store"


def _opensips_level(value: str | int) -> int:
    """OpenSIPS numbers its levels without 0: -1 error, 1 warning, 2 notice, 3 info, 4 debug."""
    number = _number(value)
    return number - 1 if number > 0 else number


def _tls_version(value: str | int) -> str:
    """The lowest version: `1.2`, Kamailio's `TLSv1.2` and `TLSv1.2+`, OpenSIPS's `TLSv1_2-`."""
    text = str(value)
    if text.lower() in ("sslv23", "tlsany"):  # whatever both sides know
        return Tls().least
    match = re.fullmatch(r"(?:TLS\s?v?)?(1(?:[._][0-3])?)(?:\+|-.*)?", text, re.IGNORECASE)
    found = "" if match is None else match[1].replace("_", ".")
    found = "1.0" if found == "1" else found
    if found not in TLS_VERSIONS:
        raise ValueError(f'expected the lowest version of TLS, such as "TLSv1.2", got "{value}"')
    return found


def _check_tls(tls: Tls) -> None:
    if not tls.certificate:
        raise ValueError('TLS needs tls_certificate = "FILE" and tls_private_key = "FILE"')
    if (tls.verify or tls.require) and not tls.ca_list:
        name = "tls_require_certificate" if tls.require else "tls_verify_certificate"
        raise ValueError(f'{name} needs tls_ca_list = "FILE"')


def _metrics(value: str | int) -> Listen | None:
    """`127.0.0.1:9096`; a port alone is of this machine, "" is none."""
    if value == "":
        return None
    if isinstance(value, int) or value.isdigit():
        value = f"127.0.0.1:{_number(value, 1, 65535)}"
    if value.lower().startswith("udp:"):
        raise ValueError(f'expected address:port, got "{value}"')
    found = parse_listen(value.strip(), METRICS_PORT)
    if len({(item.host, item.port) for item in found}) != 1:
        raise ValueError(f'expected one address:port, got "{value}"')
    return replace(found[-1], text=f"metrics={value.strip()}")


_FIELDS: dict[str, tuple[str, Callable[[str | int], int | float | str | Listen | None]]] = {
    "debug": ("debug", _number),
    "log_level": ("debug", _opensips_level),
    "log_prefix_mode": ("log_prefix_mode", _number),
    "max_while_loops": ("max_while_loops", _from(0)),
    "max_recursive_level": ("max_recursive_level", _from(1)),
    "return_mode": ("return_mode", lambda value: _number(value, 0, 2)),
    "receive_buffer": ("receive_buffer", _bytes),
    "tcp_max_connections": ("tcp_connections", _from(1)),
    "tcp_connection_lifetime": ("tcp_idle_seconds", _from(1)),
    "workers": ("workers", _from(1)),
    "metrics": ("metrics", _metrics),
    "spool_dir": ("spool_dir", str),
    "spool_limit": ("spool_limit", _bytes),
    "rtp_reports": ("rtp_reports", _interval),
    "collector_mode": ("collector_stores", _collector_mode),
    **dict.fromkeys(("user", "uid"), ("user", str)),
    **dict.fromkeys(("group", "gid"), ("group", str)),
    "plugin_error_budget": ("plugin_error_budget", _from(0)),
    "plugin_block_seconds": ("plugin_block_seconds", _seconds),
}

# Kamailio's names and, where they differ, OpenSIPS's.
_TLS_FIELDS: dict[str, tuple[str, Callable[[str | int], int | str]]] = {
    "tls_certificate": ("certificate", str),
    "tls_private_key": ("private_key", str),
    "tls_ca_list": ("ca_list", str),
    **dict.fromkeys(
        ("tls_verify", "tls_verify_certificate", "tls_verify_client"), ("verify", _number)
    ),
    **dict.fromkeys(
        ("tls_require_certificate", "tls_require_client_certificate"), ("require", _number)
    ),
    "tls_method": ("least", _tls_version),
    "tls_handshake_timeout": ("handshake_seconds", _from(1)),
}

# Kamailio 5.6 core/cfg.lex, and what OpenSIPS and newer versions add.
_NAMES = """
advertised_address advertised_port alias async_nonblock async_tkv_evcb async_tkv_gname
async_usleep async_workers auto_aliases auto_bind_ipv6 bind_ipv6_link_local check_via children
chroot core_log corelog disable_503_translation disable_core_dump disable_sctp disable_tls
dns dns_cache_del_nonexp dns_cache_delete_nonexpired dns_cache_flags dns_cache_gc_interval
dns_cache_init dns_cache_max_ttl dns_cache_mem dns_cache_min_ttl dns_cache_negative_ttl
dns_cache_rec_pref dns_naptr_ignore_rfc dns_retr_no dns_retr_time dns_sctp_pref
dns_sctp_preference dns_search_full_match dns_servers_no dns_slow_query_ms dns_srv_lb
dns_srv_loadbalancing dns_tcp_pref dns_tcp_preference dns_tls_pref dns_tls_preference
dns_try_ipv6 dns_try_naptr dns_udp_pref dns_udp_preference dns_use_search_list
dst_blacklist_expire dst_blacklist_gc_interval dst_blacklist_init dst_blacklist_mem
dst_blacklist_sctp_imask dst_blacklist_tcp_imask dst_blacklist_tls_imask dst_blacklist_ttl
dst_blacklist_udp_imask enable_sctp enable_tls event_route_callback exit_timeout
fork fork_delay http_reply_hack http_reply_parse ip_free_bind ip_nonlocal_bind
ipfreebind kemi latency_cfg_log latency_limit_action latency_limit_cfg latency_limit_db
latency_log log_color log_engine_data log_engine_type log_facility log_name log_prefix
log_stderror max_branches maxbuffer maxsndbuffer mcast mcast_loopback mcast_ttl mem_dbg
mem_join mem_log mem_safety mem_status_mode mem_summary memdbg memlog mhomed mlock_pages
modinit_delay msg_time onsend_route_callback onsend_route_reply open_files_limit phone2tel
pmtu_discovery pv_buffer_size pv_buffer_slots pv_cache_action pv_cache_limit real_time
received_route_callback received_route_mode reply_route_callback reply_to_via rev_dns
route_locks_size rt_fast_timer_prio rt_ftimer_policy rt_ftimer_prio rt_policy rt_prio
rt_stimer_policy rt_stimer_prio rt_timer1_policy rt_timer1_prio rt_timer2_policy
rt_timer2_prio run_dir rundir sctp_children ser_kill_timeout server_header server_id
server_signature shm shm_force_alloc shm_mem shm_mem_size sip_parser_log
sip_parser_log_oneline sip_parser_mode sip_warning socket_workers sql_buffer_size
stats_name_separator tcp_accept_aliases tcp_accept_haproxy tcp_accept_hep3
tcp_accept_iplimit tcp_accept_no_cl tcp_accept_unique tcp_async tcp_buf_write
tcp_check_timer tcp_children tcp_clone_rcvbuf tcp_conn_wq_max tcp_connect_timeout
tcp_connection_match tcp_crlf_ping tcp_defer_accept tcp_delayed_ack tcp_fd_cache
tcp_keepalive tcp_keepcnt tcp_keepidle tcp_keepintvl tcp_linger2 tcp_msg_data_timeout
tcp_msg_read_timeout tcp_no_connect tcp_poll_method tcp_rd_buf_size tcp_reuse_port
tcp_send_timeout tcp_source_ipv4 tcp_source_ipv6 tcp_syncnt tcp_wait_data tcp_wq_blk_size
tcp_wq_max timer_procs tls_connection_match tls_disable
tls_enable tls_log tls_max_connections tls_port_no tls_send_timeout tlslog tos
udp4_raw udp4_raw_mtu udp4_raw_ttl udp_mtu udp_mtu_try_proto udp_receiver_mode
uri_host_extra_chars use_dns_cache use_dns_failover use_dst_blacklist
user_agent_header verbose_startup version_table virtual_mode wait_worker1_mode
wait_worker1_time wait_worker1_usleep wdir workdir xavp_via_fields xavp_via_params
xavp_via_reply_params

abort_on_assert auto_scaling_cycle db_default_url db_max_async_connections db_version_table
disable_dns_blacklist disable_dns_failover enable_asserts exec_dns_threshold exec_msg_threshold
log_event_level_mask log_json_buf_size log_msg_buf_size log_stdout_level max_while_loops_log
mpath pkg_mem shm_hash_split_percentage shm_secondary_hash_size stderror_enabled
stderror_level_prefix stdout_enabled syslog_enabled syslog_facility syslog_level
tcp_max_msg_time tcp_no_new_conn_bflag tcp_parallel_handling tcp_socket_backlog tcp_threshold
tcp_workers udp_workers xlog_buf_size xlog_force_color xlog_level xlog_print_level
"""
_IGNORED = frozenset(_NAMES.split())


def _unknown(name: str) -> str:
    known = [*_IGNORED, *_FIELDS, *_TLS_FIELDS, "agent", "listen", "socket", "port", "disable_tcp"]
    hint = did_you_mean(name, known)
    return f'unknown global parameter "{name}"' + (f"\n{hint}" if hint else "")
