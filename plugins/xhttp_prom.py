"""xhttp_prom: the script's metrics over HTTP, in event_route[xhttp:request], as Kamailio has it.

The words that count are those of the module prometheus. prom_dispatch() answers with the script's
own metrics; the setting `metrics=` opens a page that has homerd's too, and needs no route.
"""

from __future__ import annotations

from homerd.api import (
    METRICS_CONTENT_TYPE,
    HttpAnswer,
    ModParam,
    Packet,
    render_metrics,
    script_function,
)
from homerd_plugins._prometheus import MetricWords


class XhttpProm(MetricWords):
    """Counts for Prometheus and answers it from the script."""

    name = "xhttp_prom"

    xhttp_prom_beginning = ModParam(
        str, "kamailio_", help="what the names of all metrics begin with"
    )
    xhttp_prom_timeout = ModParam(
        int, 60, help="minutes after which a series that nothing changes is left out; 0 keeps all"
    )
    xhttp_prom_buf_size = ModParam(int, 0, help="accepted")
    xhttp_prom_stats = ModParam(str, "", help="accepted; `metrics=` shows what homerd counts")
    xhttp_prom_pkg_stats = ModParam(int, 0, help="accepted")
    xhttp_prom_tags = ModParam(str, "", help="accepted")
    xhttp_prom_uptime_stat = ModParam(str, "", help="accepted")

    def naming(self) -> tuple[str, int]:
        """As the parameters say."""
        return self.xhttp_prom_beginning, self.xhttp_prom_timeout

    @script_function
    def prom_check_uri(self, packet: Packet) -> bool:
        """Whether the HTTP request is for /metrics; False outside of event_route[xhttp:request]."""
        exchange = packet.scratch.get("xhttp")
        return exchange is not None and exchange.request.target.partition("?")[0] == "/metrics"

    @script_function
    def prom_dispatch(self, packet: Packet) -> bool:
        """Answer the HTTP request with the script's metrics."""
        exchange = packet.scratch.get("xhttp")
        if exchange is None:
            return False
        page = render_metrics(self.counted.samples())
        exchange.answer = HttpAnswer(200, "OK", (("Content-Type", METRICS_CONTENT_TYPE),), page)
        return True
