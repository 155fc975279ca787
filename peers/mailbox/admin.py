"""The listener for the operator: `/healthz`, `/readyz` and `/metrics`, on loopback unless told otherwise.

Nothing here tells of one client: figures, and whether the mailbox can be reached and can write.
"""

from collections.abc import Callable
from typing import Final

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from peers.mailbox.meter import Metrics

_NO_STORE: Final = {"Cache-Control": "no-store"}


def admin_app(metrics: Metrics, trouble: Callable[[], str]) -> Starlette:
    """Return what answers.

    Args:
        metrics: are shown.
        trouble: says why the mailbox cannot serve now; nothing if it can.
    """

    async def alive(_request: Request) -> Response:
        return PlainTextResponse("ok\n", headers=_NO_STORE)

    async def ready(_request: Request) -> Response:
        if told := trouble():
            return PlainTextResponse(f"{told}\n", 503, headers=_NO_STORE)
        return PlainTextResponse("ready\n", headers=_NO_STORE)

    async def show(_request: Request) -> Response:
        return Response(metrics.text(), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4, **_NO_STORE})

    return Starlette(
        routes=[
            Route("/healthz", alive, methods=["GET"]),
            Route("/readyz", ready, methods=["GET"]),
            Route("/metrics", show, methods=["GET"]),
        ]
    )
