from fastmcp import FastMCP
from fastmcp.tools import Tool
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    ToolsListChanged,
)
from mcp_types import SubscriptionsListenRequestParams

mcp = FastMCP("dynamic")
bus = InMemorySubscriptionBus()
mcp._mcp_server.add_request_handler(
    "subscriptions/listen", SubscriptionsListenRequestParams, ListenHandler(bus)
)


@mcp.tool
async def learn(name: str) -> str:
    """Adds a tool"""

    def answer() -> str:
        return f"I am {name}"

    mcp.add_tool(Tool.from_function(answer, name=name, description="Says its name"))
    await bus.publish(ToolsListChanged())
    return "learnt"


if __name__ == "__main__":
    mcp.run(transport="http")
