"""prometheus: counters, gauges and histograms that a script keeps for Prometheus to read.

They are declared by parameters, in the form of Kamailio's xhttp_prom, and stand on the page
/metrics that the setting `metrics=127.0.0.1:9096` opens, beside homerd's own.
"""

from __future__ import annotations

from homerd.api import ModParam
from homerd_plugins._prometheus import MetricWords


class Prometheus(MetricWords):
    """Counts for Prometheus."""

    name = "prometheus"

    prefix = ModParam(str, "", help="what the names of all metrics begin with")
    timeout = ModParam(
        int, 0, help="minutes after which a series that nothing changes is left out; 0 keeps all"
    )

    def naming(self) -> tuple[str, int]:
        """As the parameters say."""
        return self.prefix, self.timeout
