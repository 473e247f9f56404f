"""Modules that have no part in a capture router: scripts load them, and they do nothing.

A function is written `name/least-most=result`: how many arguments it takes (`/2` exactly two) and
what it returns, 1 when it is not said.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from homerd.api import (
    Packet,
    Parameter,
    ParameterKind,
    Plugin,
    PseudoVariable,
    ScriptFunction,
)

_FUNCTION = re.compile(r"(\w+)/(\d+)(?:-(\d+))?(?:=(-?\d+))?")


@dataclass(frozen=True, slots=True)
class Accepted:
    """A module that is loaded and does nothing.

    functions: see the module's docstring.  variables: names of those that are always null.
    """

    functions: str = ""
    variables: str = ""


ACCEPTED: dict[str, Accepted] = {
    "acc": Accepted("acc_log_request/1 acc_db_request/2 acc_request/2"),
    "auth": Accepted(
        "www_challenge/2-3 proxy_challenge/2-3 auth_challenge/2 pv_www_authenticate/3-4=-1"
        " pv_proxy_authenticate/3=-1 pv_auth_check/4=-1 consume_credentials/0"
        " has_credentials/1=-1"
    ),
    "auth_db": Accepted(
        "www_authorize/2=-1 www_authenticate/2-3=-1 proxy_authorize/2=-1"
        " proxy_authenticate/2=-1 auth_check/3=-1"
    ),
    "cdp": Accepted(),
    "cfg_db": Accepted(),
    "cfg_rpc": Accepted(),
    "corex": Accepted(
        "append_branch/0-2 send_udp/0-1 send_tcp/0-1 send_data/2 msg_iflag_set/1"
        " msg_iflag_reset/1 msg_iflag_is_set/1=-1 file_read/2=-1 file_write/2"
        " setxflag/1 resetxflag/1 isxflagset/1=-1 set_source_address/1 set_recv_socket/1"
        " set_send_socket/1 forward_uac/1 via_add_srvid/1 has_ruri_user/0=-1"
    ),
    "counters": Accepted("cnt_inc/1 cnt_add/2 cnt_reset/1"),
    "ctl": Accepted(),
    "db_cassandra": Accepted(),
    "db_cluster": Accepted(),
    "db_flatstore": Accepted(),
    "db_mongodb": Accepted(),
    "db_mysql": Accepted(),
    "db_oracle": Accepted(),
    "db_postgres": Accepted(),
    "db_redis": Accepted(),
    "db_sqlite": Accepted(),
    "db_text": Accepted(),
    "db_unixodbc": Accepted(),
    "debugger": Accepted("dbg_breakpoint/1 dbg_pv_dump/0-2 dbg_sip_msg/0-2"),
    "dialog": Accepted(
        "dlg_manage/0 dlg_isflagset/1=-1 dlg_setflag/1 dlg_resetflag/1 is_known_dlg/0=-1"
        " dlg_bye/1 dlg_terminate/1-2 set_dlg_profile/1-2 unset_dlg_profile/1-2"
        " is_in_profile/1-2=-1 get_profile_size/2-3 dlg_set_timeout/1-3 dlg_get/3=-1"
    ),
    "dispatcher": Accepted(
        "ds_select/2-3=-1 ds_select_dst/2-3=-1 ds_select_domain/2-3=-1 ds_next_dst/0=-1"
        " ds_next_domain/0=-1 ds_mark_dst/0-1 ds_is_from_list/0-4=-1 ds_list_exists/1=-1"
        " ds_load_update/0 ds_load_unset/0 ds_reload/0"
    ),
    "dmq": Accepted(
        "dmq_handle_message/0-1 dmq_process_message/0-1 dmq_send_message/4"
        " dmq_bcast_message/3 dmq_t_replicate/0-1 dmq_is_from_node/0=-1"
    ),
    "dmq_usrloc": Accepted(),
    "domain": Accepted("is_from_local/0=-1 is_uri_host_local/0=-1 is_domain_local/1=-1"),
    "httpd": Accepted(),
    "maxfwd": Accepted("mf_process_maxfwd_header/1 is_maxfwd_lt/1=-1 process_maxfwd/1"),
    "mi_datagram": Accepted(),
    "mi_fifo": Accepted(),
    "mi_html": Accepted(),
    "mi_http": Accepted(),
    "mi_json": Accepted(),
    "mi_rpc": Accepted(),
    "mi_xmlrpc": Accepted(),
    "mi_xmlrpc_ng": Accepted(),
    "nathelper": Accepted(
        "fix_nated_contact/0 fix_nated_sdp/1-2 fix_nated_register/0 set_contact_alias/0-1"
        " add_contact_alias/0-3 handle_ruri_alias/0-1=-1 nat_uac_test/1=-1"
        " add_rcv_param/0-1 is_rfc1918/1=-1 set_alias_to_pv/1"
    ),
    "outbound": Accepted(),
    "path": Accepted("add_path/0-2 add_path_received/0-2 path/0"),
    "permissions": Accepted(
        "allow_routing/0-2=-1 allow_register/1-2=-1 allow_uri/2=-1 allow_address/3=-1"
        " allow_source_address/0-1=-1 allow_source_address_group/0=-1 allow_trusted/0-3=-1"
        " allow_address_group/2=-1"
    ),
    "pike": Accepted("pike_check_req/0-1 pike_check_ip/1"),
    "presence": Accepted("handle_publish/0-1 handle_subscribe/0-1"),
    "proto_bin": Accepted(),
    "proto_hep": Accepted(),
    "proto_tcp": Accepted(),
    "proto_tls": Accepted(),
    "proto_udp": Accepted(),
    "proto_ws": Accepted(),
    "proto_wss": Accepted(),
    "ratelimit": Accepted("rl_check/0-1 rl_check_pipe/1 rl_drop/0-2"),
    "registrar": Accepted(
        "save/1-3 lookup/1-2=-1 lookup_branches/1-2=-1 registered/1-4=-1 unregister/2-3"
        " add_sock_hdr/1 reg_fetch_contacts/3=-1 reg_free_contacts/1 reg_send_reply/0"
        " lookup_to_dset/1-2=-1"
    ),
    "rr": Accepted(
        "loose_route/0=-1 loose_route_mode/1=-1 loose_route_preloaded/0=-1 record_route/0-1"
        " record_route_preset/1-2 record_route_advertised_address/1 add_rr_param/1"
        " check_route_param/1=-1 is_direction/1=-1 remove_record_route/0 rr_next_hop_route/0=-1"
    ),
    "rtpengine": Accepted(
        "rtpengine_offer/0-1 rtpengine_answer/0-1 rtpengine_delete/0-1 rtpengine_manage/0-1"
        " start_recording/0-1 stop_recording/0-1 set_rtpengine_set/1-2"
    ),
    "rtpproxy": Accepted(
        "rtpproxy_offer/0-2 rtpproxy_answer/0-2 rtpproxy_destroy/0-1 rtpproxy_manage/0-2"
        " unforce_rtp_proxy/0 force_rtp_proxy/0-2 set_rtp_proxy_set/1",
        "rtpstat",
    ),
    "sanity": Accepted("sanity_check/0-2 sanity_reply/0"),
    "sctp": Accepted(),
    "signaling": Accepted("send_reply/2"),
    "siptrace": Accepted("sip_trace/0-4 sip_trace_mode/1 hlog/1-2"),
    "sl": Accepted(
        "sl_send_reply/2 sl_reply/2 send_reply/2 send_reply_mode/3 sl_reply_error/0"
        " sl_forward_reply/0-2"
    ),
    "sst": Accepted("sstCheckMin/1=-1"),
    "stun": Accepted(),
    "tls": Accepted("is_peer_verified/0=-1"),
    "tm": Accepted(
        "t_relay/0-2 t_newtran/0 t_reply/2 t_reply_callid/4 t_check_trans/0=-1"
        " t_lookup_request/0=-1 t_lookup_cancel/0-1=-1 t_release/0 t_retransmit_reply/0"
        " t_on_reply/1 t_on_failure/1 t_on_branch/1 t_on_branch_failure/1 t_is_set/1=-1"
        " t_check_status/1=-1 t_branch_timeout/0=-1 t_branch_replied/0=-1 t_any_timeout/0=-1"
        " t_any_replied/0=-1 t_is_canceled/0=-1 t_is_expired/0=-1 t_was_cancelled/0=-1"
        " t_grep_status/1=-1 t_is_request_route/0=-1 t_is_reply_route/0=-1"
        " t_is_failure_route/0=-1 t_is_branch_route/0=-1 t_is_retr_async_reply/0=-1"
        " t_relay_to/0-2 t_relay_to_udp/0-2 t_relay_to_tcp/0-2 t_relay_to_tls/0-2"
        " t_relay_cancel/0 t_forward_nonack/0-2 t_forward_nonack_udp/2 t_forward_nonack_tcp/2"
        " t_replicate/0-2 t_replicate_udp/2 t_replicate_tcp/2 t_set_fr/1-2 t_reset_fr/0"
        " t_set_retr/2 t_reset_retr/0 t_set_max_lifetime/2 t_reset_max_lifetime/0"
        " t_set_auto_inv_100/1 t_set_disable_6xx/1 t_set_disable_failover/1"
        " t_set_no_e2e_cancel_reason/1 t_set_disable_internal_reply/1 t_load_contacts/0-1"
        " t_next_contacts/0=-1 t_next_contact_flow/0=-1 t_use_uac_headers/0 t_save_lumps/0"
        " t_get_status_code/0=-1 t_exists/0=-1 t_send_reply/2"
    ),
    "tmx": Accepted(
        "t_cancel_branches/1 t_cancel_callid/3-4 t_reply_callid/4 t_flush_flags/0"
        " t_is_failure_route/0=-1 t_is_branch_route/0=-1 t_is_reply_route/0=-1"
        " t_suspend/0 t_continue/3 t_reuse_branch/0 t_precheck_trans/0=-1 t_drop/0-1"
        " t_reply_callid/4"
    ),
    "topoh": Accepted(),
    "topos": Accepted(),
    "uac": Accepted(
        "uac_replace_from/1-2 uac_replace_to/1-2 uac_restore_from/0 uac_restore_to/0"
        " uac_auth/0-1=-1 uac_req_send/0 uac_reg_lookup/2=-1"
    ),
    "uri": Accepted(
        "is_user/1=-1 uri_param/1-2=-1 add_uri_param/1 del_uri_param/1 tel2sip/0"
        " is_uri_user_e164/1=-1 db_check_to/0=-1 db_check_from/0=-1 db_does_uri_exist/0=-1"
    ),
    "usrloc": Accepted(),
    "xmlrpc": Accepted("dispatch_rpc/0 xmlrpc_reply/2"),
}


# What every capture script has along, as its server's own examples do: not worth a word.
USUAL = re.compile(r"ctl|maxfwd|rr|signaling|sl|tm|tmx|uri|cfg_rpc|counters|(db|mi|proto)_.*")


class AcceptedModule(Plugin):
    """A module by its name: offers its functions, does nothing.

    accepted: whoever loads it passes over its modparam lines, and warns unless it is usual.
    """

    name = ""
    accepted = True

    def __init__(self, name: str, accepted: Accepted) -> None:
        self.name = name
        self.usual = USUAL.fullmatch(name) is not None
        self.words = (*functions(accepted.functions, name), *_nulls(accepted.variables, name))


def make(name: str) -> AcceptedModule | None:
    """The module *name* that is accepted and does nothing; None when it is none of these."""
    accepted = ACCEPTED.get(name)
    return None if accepted is None else AcceptedModule(name, accepted)


def functions(text: str, module: str) -> tuple[ScriptFunction, ...]:
    """Functions written as the module's docstring says."""
    return tuple(_function(word, module) for word in text.split())


def _nulls(text: str, module: str) -> tuple[PseudoVariable, ...]:
    return tuple(
        PseudoVariable(name, get=lambda packet: None, module=module, help="Null.")
        for name in text.split()
    )


def _function(word: str, module: str) -> ScriptFunction:
    match = _FUNCTION.fullmatch(word)
    assert match is not None, word
    name, least, most = match[1], int(match[2]), int(match[3] or match[2])
    result = int(match[4] or 1)

    def call(packet: Packet, *arguments: str) -> int:
        return result

    parameters = tuple(
        Parameter(f"argument{index + 1}", ParameterKind.PLAIN, required=index < least)
        for index in range(most)
    )
    return ScriptFunction(name, call, parameters, module=module, help="Accepted; does nothing.")
