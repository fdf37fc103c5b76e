import asyncio

from fastmcp import Client, FastMCP

mcp = FastMCP("test")


@mcp.tool
def greet(name: str) -> str:
    """Greets somebody"""
    return f"Hello, {name}!"


async def call() -> str:
    async with Client(mcp) as client:
        return (await client.call_tool("greet", {"name": "Ada"})).data


def test_the_tool_greets() -> None:
    assert asyncio.run(call()) == "Hello, Ada!"
