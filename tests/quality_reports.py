"""Voice quality reports as phones send them in a PUBLISH."""

from __future__ import annotations


def lines(text):
    """*text* with the line ends of SIP."""
    return text.strip("\n").replace("\n", "\r\n") + "\r\n"


# RFC 6035 4.7.3 (F13) as it is printed there, folds and all; addresses are those for documents.
RFC_REPORT = lines("""
VQSessionReport: CallTerm
CallID: 6dg37f1890463
LocalID: Alice <sip:alice@example.org>
RemoteID: Bill <sip:bill@example.net>
OrigID: Alice <sip:alice@example.org>
LocalGroup: example-phone-55671
RemoteGroup: example-gateway-09871
LocalAddr: IP=192.0.2.100 PORT=5000 SSRC=1a3b5c7d
LocalMAC: 00:00:5e:00:53:01
RemoteAddr:IP=198.51.100.150 PORT=5002 SSRC=0x2468abcd
RemoteMAC: 00:00:5e:00:53:02
LocalMetrics:
Timestamps:START=2004-10-10T18:23:43Z STOP=2004-10-01T18:26:02Z
SessionDesc:PT=18 PD=G729 SR=8000 FD=20 FO=20 FPP=2 PPS=50
                FMTP="annexb=no" PLC=3 SSUP=on
JitterBuffer:JBA=3 JBR=2 JBN=40 JBM=80 JBX=120
PacketLoss:NLR=5.0 JDR=2.0
BurstGapLoss:BLD=0 BD=0 GLD=2.0 GD=500 GMIN=16
Delay:RTD=200 ESD=140 SOWD=200 IAJ=2 MAJ=10
Signal:SL=-21 NL=-50 RERL=55
QualityEst:RLQ=90 RCQ=85 EXTRI=90 MOSLQ=4.2 MOSCQ=4.3
  QoEEstAlg=P.564
RemoteMetrics:
Timestamps:START=2004-10-10T18:23:43Z STOP=2004-10-01T18:26:02Z
SessionDesc:PT=18 PD=G729 SR=8000 FD=20 FO=20 FPP=2 PPS=50
                FMTP="annexb=no" PLC=3 SSUP=on
JitterBuffer:JBA=3 JBR=2 JBN=40 JBM=80 JBX=120
PacketLoss:NLR=5.0 JDR=2.0
BurstGapLoss:BLD=0 BD=0 GLD=2.0 GD=500 GMIN=16
Delay:RTD=200 ESD=140 SOWD=200 IAJ=2 MAJ=10
Signal:SL=-21 NL=-45 RERL=55
QualityEst:RLQ=90 RCQ=85 MOSLQ=4.3 MOSCQ=4.2 QoEEstAlg=P.564
DialogID:1890463548@alice.example.org;to-tag=8472761;
   from-tag=9123dh311
""")

# What a snom821 sends: lines of its own, two values without a blank between them, one side only.
SNOM_REPORT = lines("""
VQSessionReport: CallTerm
CallID:825962570309-8ds5sl3mca99
LocalID:<sip:5004@example.org>
RemoteID:<sip:520@example.org;user=phone>
OrigID:<sip:5004@example.org>
LocalAddr:IP=192.0.2.13 PORT=57460 SSRC=0x014EA261
LocalMAC:00005E005301
RemoteAddr:IP=198.51.100.252 PORT=10034 SSRC=0x1F634EA2
DialogID:825962570309-8ds5sl3mca99;to-tag=gqj87t0stF-M8g;from-tag=2ygtpy7bgk
x-UserAgent:snom821/873_19_20130321
LocalMetrics:
Timestamps:START=2016-06-16T07:47:14Z STOP=2016-06-16T07:47:21Z
SessionDesc:PT=8 PD=PCMA SR=8000 PPS=50 SSUP=off
x-SIPmetrics:SVA=RG SRD=392 SFC=0
x-SIPterm:SDC=OK SDT=7 SDR=OR
JitterBuffer:JBA=3 JBR=2 JBN=20 JBM=20JBX=240
PacketLoss:NLR=0.0 JDR=0.0
BurstGapLoss:BLD=0.0 BD=0 GLD=0.0 GD=5930 GMIN=16
Delay:RTD=0 ESD=0 IAJ=0
QualityEst:MOSLQ=4.1 MOSCQ=4.1
""")


def publish(report, domain="acme.example"):
    """The PUBLISH that carries *report*, of a user of *domain*."""
    head = lines(f"""
PUBLISH sip:collector@example.org SIP/2.0
Via: SIP/2.0/UDP 192.0.2.100:5060;branch=z9hG4bK3343d7
From: Alice <sip:alice@{domain}>;tag=a3343df32
To: <sip:collector@example.org>
Call-ID: k3l43id034ksererf
CSeq: 4321 PUBLISH
Max-Forwards: 70
Contact: <sip:alice@192.0.2.100:5060>
Event: vq-rtcpxr
Accept: application/sdp, message/sipfrag
Content-Type: application/vq-rtcpxr
Content-Length: {len(report)}
""")
    return (head + "\r\n" + report).encode()
