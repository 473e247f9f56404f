"""What the numbers in ISUP parameters mean, in the words of ITU-T Q.763, Q.850 and Q.931."""

from __future__ import annotations

# Q.763 3.9
INTERNAL = (
    "routing to internal network number allowed",
    "routing to internal network number not allowed",
)
NATURES = (
    "spare",
    "subscriber number (national use)",
    "unknown (national use)",
    "national (significant) number",
    "international number",
    "network-specific number (national use)",
    "network routing number in national (significant) number format (national use)",
    "network routing number in network-specific number format (national use)",
    "network routing number concatenated with Called Directory Number (national use)",
)
PLANS = (
    "spare",
    "ISDN (Telephony) numbering plan (ITU-T Recommendation E.164)",
    "spare",
    "Data numbering plan (ITU-T Recommendation X.121) (national use)",
    "Telex numbering plan (ITU-T Recommendation F.69) (national use)",
    "reserved for national use",
    "reserved for national use",
)

# Q.763 3.10
COMPLETENESS = ("complete", "incomplete")
PRESENTATION = (
    "presentation allowed",
    "presentation restricted",
    "address not available (national use)",
    "reserved for restriction by the network",
)
SCREENING = (
    "reserved",
    "user provided, verified and passed",
    "reserved",
    "network provided",
)

# Q.763 3.11
CATEGORIES = {
    0: "calling party's category unknown at this time (national use)",
    1: "operator, language French",
    2: "operator, language English",
    3: "operator, language German",
    4: "operator, language Russian",
    5: "operator, language Spanish",
    9: "reserved (see ITU-T Recommendation Q.104) (national use)",
    10: "ordinary calling subscriber",
    11: "calling subscriber with priority",
    12: "data call (voice band data)",
    13: "test call",
    14: "spare",
    15: "payphone",
}

# Q.763 3.21
EVENTS = {
    1: "ALERTING",
    2: "PROGRESS",
    3: "in-band",
    4: "call forwarded on busy",
    5: "call forwarded on no reply",
    6: "call forwarded unconditional",
}

# Q.763 3.23: name, bits, meanings, from the lowest bit on
FORWARD_CALL = (
    (
        "national_international_call",
        1,
        ("call to be treated as a national call", "call to be treated as an international call"),
    ),
    (
        "end_to_end_method",
        2,
        (
            "no end-to-end method available (only link-by-link method available)",
            "pass-along method available (national use)",
            "SCCP method available",
            "pass-along and SCCP methods available (national use)",
        ),
    ),
    (
        "interworking",
        1,
        (
            "no interworking encountered (No. 7 signalling all the way)",
            "interworking encountered",
        ),
    ),
    (
        "end_to_end_information",
        1,
        ("no end-to-end information available", "end-to-end information available"),
    ),
    (
        "isup",
        1,
        ("ISDN user part not used all the way", "ISDN user part used all the way"),
    ),
    (
        "isup_preference",
        2,
        (
            "ISDN user part preferred all the way",
            "ISDN user part not required all the way",
            "ISDN user part required all the way",
            "spare",
        ),
    ),
    ("isdn_access", 1, ("originating access non-ISDN", "originating access ISDN")),
    (
        "sccp_method",
        2,
        (
            "no indication",
            "connectionless method available (national use)",
            "connection oriented method available",
            "connectionless and connection oriented methods available (national use)",
        ),
    ),
)

# Q.763 3.35
SATELLITES = (
    "no satellite circuit in the connection",
    "one satellite circuit in the connection",
    "two satellite circuits in the connection",
    "spare",
)
CONTINUITY = (
    "continuity check not required",
    "continuity check required on this circuit",
    "continuity check performed on a previous circuit",
    "spare",
)
ECHO = (
    "outgoing echo control device not included",
    "outgoing echo control device included",
)

# Q.763 3.54; 0x10 on: so many times 64 kbit/s
MEDIA = {
    0: "speech",
    1: "spare",
    2: "64 kbit/s unrestricted",
    3: "3.1 kHz audio",
    4: "reserved for alternate speech (service 2)/64 kbit/s unrestricted (service 1)",
    5: "reserved for alternate 64 kbit/s unrestricted (service 1)/speech (service 2)",
    6: "64 kbit/s preferred",
    7: "2 × 64 kbit/s unrestricted",
    8: "384 kbit/s unrestricted",
    9: "1536 kbit/s unrestricted",
    10: "1920 kbit/s unrestricted",
    **{
        0x10 + index: f"{index + 3} × 64 kbit/s unrestricted"
        for index in range(27)
        if index not in (3, 21)
    },
    0x13: "spare",
    0x25: "spare",
}

# Q.850 2.2
STANDARDS = ("ITU-T", "ISO/IEC", "National", "Specific")
LOCATIONS = {
    0: "user (U)",
    1: "private network serving the local user (LPN)",
    2: "public network serving the local user (LN)",
    3: "transit network (TN)",
    4: "public network serving the remote user (RLN)",
    5: "private network serving the remote user (RPN)",
    7: "international network (INTL)",
    10: "network beyond interworking point (BI)",
}
CLASSES = (
    "normal event",
    "normal event",
    "resource unavailable",
    "service or option not available",
    "service or option not implemented",
    "invalid message",
    "protocol error",
    "interworking",
)
CAUSES = {
    1: "Unallocated (unassigned) number",
    2: "No route to specified transit network",
    3: "No route to destination",
    4: "Send special information tone",
    5: "Misdialled trunk prefix",
    6: "Channel unacceptable",
    7: "Call awarded and being delivered in an established channel",
    8: "Preemption",
    9: "Preemption - circuit reserved for reuse",
    14: "QoR: ported number",
    16: "Normal call clearing",
    17: "User busy",
    18: "No user responding",
    19: "No answer from user (user alerted)",
    20: "Subscriber absent",
    21: "Call rejected",
    22: "Number changed",
    23: "Redirection to new destination",
    24: "Call rejected due to failure at the destination",
    25: "Exchange routing error",
    26: "Non-selected user clearing",
    27: "Destination out of order",
    28: "Invalid number format (address incomplete)",
    29: "Facility rejected",
    30: "Response to STATUS ENQUIRY",
    31: "Normal, unspecified",
    34: "No circuit/channel available",
    38: "Network out of order",
    39: "Permanent frame mode connection out of service",
    40: "Permanent frame mode connection operational",
    41: "Temporary failure",
    42: "Switching equipment congestion",
    43: "Access information discarded",
    44: "Requested circuit/channel not available",
    46: "Precedence call blocked",
    47: "Resource unavailable, unspecified",
    49: "Quality of service not available",
    50: "Requested facility not subscribed",
    53: "Outgoing calls barred within CUG",
    55: "Incoming calls barred within CUG",
    57: "Bearer capability not authorized",
    58: "Bearer capability not presently available",
    62: "Inconsistency in designated outgoing access information and subscriber class",
    63: "Service or option not available, unspecified",
    65: "Bearer capability not implemented",
    66: "Channel type not implemented",
    69: "Requested facility not implemented",
    70: "Only restricted digital information bearer capability is available",
    79: "Service or option not implemented, unspecified",
    81: "Invalid call reference value",
    82: "Identified channel does not exist",
    83: "A suspended call exists, but this call identity does not",
    84: "Call identity in use",
    85: "No call suspended",
    86: "Call having the requested call identity has been cleared",
    87: "User not member of CUG",
    88: "Incompatible destination",
    90: "Non-existent CUG",
    91: "Invalid transit network selection",
    95: "Invalid message, unspecified",
    96: "Mandatory information element is missing",
    97: "Message type non-existent or not implemented",
    98: "Message not compatible with call state or message type non-existent or not implemented",
    99: "Information element /parameter non-existent or not implemented",
    100: "Invalid information element contents",
    101: "Message not compatible with call state",
    102: "Recovery on timer expiry",
    103: "Parameter non-existent or not implemented, passed on",
    110: "Message with unrecognized parameter, discarded",
    111: "Protocol error, unspecified",
    127: "Interworking, unspecified",
}

# Q.931 4.5.5
CODING = (
    "ITU-T standardized coding as described below",
    "ISO/IEC Standard",
    "National standard",
    "Standard defined for the network (either public or private) present on the network side of"
    " the interface",
)
CAPABILITIES = {
    0x00: "Speech",
    0x08: "Unrestricted digital information",
    0x09: "Restricted digital information",
    0x10: "3.1 kHz audio",
    0x11: "Unrestricted digital information with tones/announcements",
    0x18: "Video",
}
MODES = {0: "Circuit mode", 1: "Packet mode"}
RATES = {
    0x00: "packet-mode calls",
    0x10: "64 kbit/s",
    0x11: "2 × 64 kbit/s",
    0x13: "384 kbit/s",
    0x15: "1536 kbit/s",
    0x17: "1920 kbit/s",
    0x18: "Multirate (64 kbit/s base rate)",
}
LAYER1 = {
    1: "ITU-T standardized rate adaption V.110, I.460 and X.30",
    2: "G.711 u-law",
    3: "G.711 a-law",
    4: "G.721 ADPCM",
    5: "H.221 and H.242",
    6: "H.223 and H.245",
    7: "Non-ITU-T standardized rate adaption",
    8: "V.120",
    9: "X.31",
}
