import asyncio

from fastmcp import FastMCP
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    ResourceUpdated,
)
from mcp_types import SubscriptionsListenRequestParams

URI = "feed://price"
mcp = FastMCP("watch")
bus = InMemorySubscriptionBus()
price = 0


@mcp.resource(URI, name="price")
def read() -> str:
    return str(price)


async def upstream() -> None:
    global price
    while True:
        await asyncio.sleep(1)
        price += 1
        await bus.publish(ResourceUpdated(uri=URI))


class Watched(ListenHandler):
    watchers = 0
    running: asyncio.Task

    async def __call__(self, ctx, params):
        if URI not in (params.notifications.resource_subscriptions or ()):
            return await super().__call__(ctx, params)
        if self.watchers == 0:
            self.running = asyncio.create_task(upstream())
        self.watchers += 1
        try:
            return await super().__call__(ctx, params)
        finally:
            self.watchers -= 1
            if self.watchers == 0:
                self.running.cancel()


mcp._mcp_server.add_request_handler(
    "subscriptions/listen", SubscriptionsListenRequestParams, Watched(bus)
)

if __name__ == "__main__":
    mcp.run(transport="http")
