"""sipmsgops: tests on messages, of scripts written for OpenSIPS."""

from __future__ import annotations

from homerd.api import Packet, Plugin, script_function
from homerd_plugins import _accepted
from homerd_plugins._message_tests import MessageTests

_CHANGES = (
    "add_body_part/2-3 append_time/0 change_reply_status/2 codec_delete/1=-1"
    " codec_delete_clock/2=-1 codec_delete_except_re/1=-1 codec_delete_re/1=-1 codec_exists/1=-1"
    " codec_exists_clock/2=-1"
    " codec_move_down/1=-1 codec_move_down_clock/2=-1 codec_move_down_re/1=-1 codec_move_up/1=-1"
    " codec_move_up_clock/2=-1 codec_move_up_re/1=-1 filter_body/1 insert_hf/1-2 append_hf/1-2"
    " append_to_reply/1 is_audio_on_hold/0=-1 is_privacy/1=-1 list_hdr_add_option/2"
    " list_hdr_has_option/2=-1 list_hdr_remove_option/2 remove_body_part/0-2 remove_hf/1"
    " remove_hf_re/1 remove_hf_glob/1 ruri_add_param/1 ruri_del_param/1 ruri_has_param/1-2=-1"
    " ruri_tel2sip/0 sipmsg_validate/0-3 stream_delete/1=-1 stream_exists/1=-1 strip_body/0-1"
)


class SipMsgOps(Plugin, MessageTests):
    """Tests on a message's method, headers, body and text; what would change it does nothing."""

    name = "sipmsgops"

    def __init__(self) -> None:
        self.words = _accepted.functions(_CHANGES, self.name)

    @script_function
    def has_totag(self, packet: Packet) -> bool:
        """Whether To has a tag."""
        return packet.sip.to_tag is not None

    @script_function
    def has_body_part(self, packet: Packet, kind: str = "") -> bool:
        """Whether there is a body, of the Content-Type *kind* when one is given."""
        sip = packet.sip
        return bool(sip.body) and kind.lower() in (sip.content_type or "").lower()
