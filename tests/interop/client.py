"""The official Python client: both eras. In the modern era it answers `input_required` by itself,
with the same callbacks that answer a server's requests in the legacy era.

    MCP_ERA=legacy|modern [MCP_ODD=1] python client.py http URL | stdio COMMAND ARGUMENT...

With MCP_ODD the server has unusual types.
Each step that passes is one word on stdout. The first that fails ends the run.
"""

import json
import os
import sys
import traceback
from contextlib import asynccontextmanager

import anyio
import jsonschema
import mcp_types as types
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import ResourceUpdated, ToolsListChanged
from mcp.shared._httpx_utils import create_mcp_http_client

KIND, *TARGET = sys.argv[1:]
MODERN = os.environ["MCP_ERA"] == "modern"
ODD = "MCP_ODD" in os.environ
WATCHED = "test://watched-resource"

heard = []  # The notifications of the legacy era, and the events of the modern one.
logged = []
resumed = []  # The Last-Event-ID headers that were sent.


async def on_message(message):
    heard.append(message)


async def on_log(params):
    logged.append((params.level, params.data))


async def on_elicit(_context, params):
    content = {"username": "ada", "email": "ada@example.com"}
    if ODD:
        form = params.requested_schema
        content = {name: 1 for name in form["required"]}
    return types.ElicitResult(action="accept", content=content)


async def on_sample(_context, _params):
    text = types.TextContent(type="text", text="forty-two")
    return types.CreateMessageResult(role="assistant", model="none", content=text)


async def on_request(request):
    if "last-event-id" in request.headers:
        resumed.append(request.headers["last-event-id"])


async def until(what, holds):
    with anyio.move_on_after(5):
        while not await holds():
            await anyio.sleep(0.02)
        return
    raise AssertionError(f"{what}: not within 5 s")


async def tool(client, name, args=None, **options):
    result = await client.call_tool(name, args or {}, **options)
    text = result.content[0].text
    assert not result.is_error, f"{name}: {text}"
    return text


async def all_tools(client):
    found, cursor = [], None
    while True:
        page = await client.list_tools(cursor=cursor)
        found += page.tools
        cursor = page.next_cursor
        if cursor is None:
            return found


async def names(client):
    return [tool.name for tool in await all_tools(client)]


@asynccontextmanager
async def listening(client, **wanted):
    """In the modern era the client receives only the notices that it listens for."""
    heard.clear()
    if not MODERN:
        yield
        return

    async def collect(events):
        async for event in events:
            heard.append(event)

    async with client.listen(**wanted) as events, anyio.create_task_group() as tasks:
        tasks.start_soon(collect, events)
        yield
        tasks.cancel_scope.cancel()


async def step_list(client):
    found = await names(client)
    assert len(set(found)) == len(found), "a tool is listed twice"
    offered = {
        "test_simple_text", "json_schema_2020_12_tool", "test_tool_with_progress", "test_sampling",
        "test_input_required_result_elicitation", "add_tool", "slow_tool", "echo", "panic",
    }
    assert offered <= set(found), f"not listed: {offered - set(found)}"


async def step_progress(client):
    seen = []

    async def on_progress(progress, total, _message):
        seen.append((progress, total))

    await tool(client, "test_tool_with_progress", progress_callback=on_progress)
    await anyio.sleep(0.1)
    assert seen == [(0, 100), (50, 100), (100, 100)], seen


async def step_log(client):
    logged.clear()
    if not MODERN:  # There the client asks for messages with each request: `log_level`.
        await client.set_logging_level("info")
    await tool(client, "test_tool_with_logging")
    await anyio.sleep(0.1)
    assert logged == [
        ("info", "Tool execution started"),
        ("info", "Tool processing data"),
        ("info", "Tool execution completed"),
    ], logged


async def step_list_changed(client):
    name = f"added_{os.getpid()}"

    async def changed():
        kind = ToolsListChanged if MODERN else types.ToolListChangedNotification
        return any(isinstance(one, kind) for one in heard)

    async with listening(client, tools_list_changed=True):
        await tool(client, "add_tool", {"name": name})
        await until("list_changed after add_tool", changed)
        assert name in await names(client), "the added tool is not listed"
        assert await tool(client, name) == f"This is {name}."
        heard.clear()
        await tool(client, "remove_tool", {"name": name})
        await until("list_changed after remove_tool", changed)
        assert name not in await names(client), "the removed tool is listed"


async def step_updated(client):
    async def updated():
        if MODERN:
            uris = [one.uri for one in heard if isinstance(one, ResourceUpdated)]
        else:
            kind = types.ResourceUpdatedNotification
            uris = [one.params.uri for one in heard if isinstance(one, kind)]
        return WATCHED in map(str, uris)

    async with listening(client, resource_subscriptions=[WATCHED]):
        if not MODERN:
            await client.subscribe_resource(WATCHED)
        await tool(client, "touch_resource", {"uri": WATCHED})
        await until("updated", updated)
        if not MODERN:
            await client.unsubscribe_resource(WATCHED)


async def step_elicitation(client):
    text = await tool(client, "test_elicitation", {"message": "Who are you?"})
    assert text == "User response: ada, ada@example.com", text


async def step_sampling(client):
    text = await tool(client, "test_sampling", {"prompt": "The answer?"})
    assert text == "LLM response: forty-two", text


async def step_cancel(client):
    async def counts():
        return json.loads(await tool(client, "cancel_log"))

    before = await counts()
    returned = []

    async def slow():
        returned.append(await tool(client, "slow_tool", {"seconds": 30}))

    async def started():
        return (await counts())["started"] == before["started"] + 1

    async def cancelled():
        return (await counts())["cancelled"] == before["cancelled"] + 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(slow)
        await until("slow_tool starts", started)
        tasks.cancel_scope.cancel()
    assert not returned, returned
    await until("slow_tool is cancelled", cancelled)
    assert (await counts())["finished"] == before["finished"]


async def step_resume(client):
    resumed.clear()
    text = await tool(client, "test_reconnection")
    assert text == "Reconnection test completed successfully", text
    assert resumed, "the stream was never resumed"


async def step_schemas(client):
    tools = await all_tools(client)
    assert len(tools) > 40, len(tools)
    for tool in tools:
        jsonschema.Draft202012Validator.check_schema(tool.input_schema)
        assert tool.input_schema["type"] == "object" and "properties" in tool.input_schema, tool
        if tool.output_schema is not None:
            jsonschema.Draft202012Validator.check_schema(tool.output_schema)
            assert MODERN or tool.output_schema["type"] == "object", tool


async def step_calls(client):
    for tool in await all_tools(client):
        # The client itself compares the result with the schema.
        result = await client.call_tool(tool.name, tool.meta["example"])
        assert result.is_error == (tool.name == "give_failure"), (tool.name, result)
        structured = result.structured_content
        assert MODERN or structured is None or isinstance(structured, dict), (tool.name, structured)
        assert MODERN or result.content, f"{tool.name} gives nothing"


async def main():
    steps = [
        step_list, step_progress, step_log, step_list_changed, step_updated, step_elicitation,
        step_sampling, step_cancel,
    ]
    if ODD:
        steps = [step_schemas, step_calls]
    if KIND == "http":
        requests = create_mcp_http_client()
        requests.event_hooks = {"request": [on_request]}
        target = streamable_http_client(TARGET[0], http_client=requests)
        if not MODERN and not ODD:  # The modern era has no Last-Event-ID, and neither has stdio.
            steps.append(step_resume)
    else:
        target = StdioServerParameters(command=TARGET[0], args=TARGET[1:])
    client = Client(
        target,
        mode="auto" if MODERN else "legacy",
        cache=None,  # The server is tested, so nothing comes from the client's cache.
        log_level="info",
        logging_callback=on_log,
        message_handler=on_message,
        elicitation_callback=on_elicit,
        sampling_callback=on_sample,
    )
    doing = "connect"
    try:
        async with client:
            assert (client.protocol_version >= "2026") == MODERN, client.protocol_version
            for step in steps:
                doing = step.__name__.removeprefix("step_")
                await step(client)
                print(doing, flush=True)
            doing = "close"
    except BaseException:
        traceback.print_exc()
        print(f"failed in {doing}", file=sys.stderr)
        sys.exit(1)


anyio.run(main)
