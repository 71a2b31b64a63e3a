"""``/metrics`` for Prometheus.

Free of the token where the API listens on loopback and is asked from there: the admin token would give a scraper the
power over the fleet for figures that stand in public topics and certificates. On any other address it is asked for.
"""

import ipaddress

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from orchestrator.web.services import Services

METRICS_PATH = "/metrics"


def metrics_routes(services: Services) -> APIRouter:
    """The one route."""
    router = APIRouter()

    @router.get(METRICS_PATH, include_in_schema=False)
    async def show_metrics() -> Response:
        """Gauges in Prometheus' text format."""
        for broker in await services.delivery.standing():
            services.metrics.set_broker(
                broker.name, connected=broker.connected, topics=broker.topics, releases=len(broker.releases)
            )
        return Response(services.metrics.render(), media_type=CONTENT_TYPE_LATEST)

    return router


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
