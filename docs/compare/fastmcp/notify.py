import asyncio

from fastmcp import Context, FastMCP

mcp = FastMCP("notify")
running = set()


@mcp.tool
async def remind(text: str, ctx: Context) -> str:
    """Reminds its caller, a second later"""
    session = ctx.session

    async def later() -> None:
        await asyncio.sleep(1)
        await session.send_log_message("info", text)

    task = asyncio.create_task(later())
    running.add(task)
    task.add_done_callback(running.discard)
    return "in a second"


if __name__ == "__main__":
    mcp.run(transport="http")
