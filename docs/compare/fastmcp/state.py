from itertools import count as numbers

from fastmcp import FastMCP

mcp = FastMCP("state")
calls = numbers(1)


@mcp.tool
async def count() -> str:
    """Counts its calls"""
    return str(next(calls))


if __name__ == "__main__":
    mcp.run(transport="http")
