"""Checks the server with the Python SDK, whose client checks every answer against the tool's output schema.

    python python-sdk.py stdio COMMAND [ARGUMENT...]
    python python-sdk.py sse|http URL

Prints a line for each check and stops at the first that fails. typescript-sdk.mjs makes the same checks.
"""

import json
import os
import sys
import traceback
from contextlib import AsyncExitStack, contextmanager
from datetime import datetime, timezone

import anyio
from mcp import ClientSession, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamablehttp_client
from mcp.types import Implementation

TRANSPORT, *TARGET = sys.argv[1:]
TRANSPORTS = {
    "stdio": lambda: stdio_client(StdioServerParameters(command=TARGET[0], args=TARGET[1:])),
    "sse": lambda: sse_client(TARGET[0]),
    "http": lambda: streamablehttp_client(TARGET[0]),
}
TOOLS = [
    "get_audit_log", "get_audit_stats", "get_project", "get_resource",
    "list_projects", "list_resources", "update_project", "update_resource",
]  # fmt: skip
KINDS = {"project": "challenge", "resource": "price"}
SELF = Implementation(name="python-sdk-checks", version="1.0.0")


@contextmanager
def check(name):
    try:
        yield
    except BaseException as error:
        trace = "".join(traceback.format_exception(error, chain=False))
        print(f"FAILED python-sdk {TRANSPORT}: {name}\n{trace[:2500]}", flush=True)
        os._exit(1)  # a clean shutdown could wait for the server that just failed
    print(f"ok python-sdk {TRANSPORT}: {name}", flush=True)


def equal(actual, expected):
    if actual != expected:
        here, there = repr(actual), repr(expected)
        start = max(0, len(os.path.commonprefix([here, there])) - 80)
        raise AssertionError(f"found ...{here[start:][:200]}\nexpected ...{there[start:][:200]}")


async def call(session, tool, arguments):
    return (await session.call_tool(tool, arguments)).model_dump(mode="json", by_alias=True)


async def answer(session, tool, **arguments):
    result = await call(session, tool, arguments)
    assert not result["isError"], f"{tool} answered with an error: {result['content']}"
    equal(result["structuredContent"]["success"], True)
    equal(json.loads(result["content"][0]["text"]), result["structuredContent"])
    return result["structuredContent"]["data"], result["structuredContent"]["meta"]


async def refusal(session, tool, **arguments):
    result = await call(session, tool, arguments)
    assert result["isError"], f"{tool} accepted {arguments}"
    equal(result["structuredContent"], None)
    text = json.loads(result["content"][0]["text"])
    equal(text["success"], False)
    return text["error"]


async def check_tools(session):
    with check("finds the eight tools and their schemas"):
        tools = (await session.list_tools()).model_dump(mode="json", by_alias=True)["tools"]
        equal(sorted(tool["name"] for tool in tools), TOOLS)
        for tool in tools:
            equal(tool["inputSchema"]["type"], "object")
            equal(tool["outputSchema"]["type"], "object")


async def check_kind(session, kind, field):
    broken = f"broken-{kind}"

    with check(f"lists {kind}s and reads one"):
        rows, meta = await answer(session, f"list_{kind}s", limit=100)
        equal(meta["total"], len(rows))
        row = next(row for row in rows if row["id"] != broken)
        before, meta_before = await answer(session, f"get_{kind}", id=row["id"])
        equal([before["id"], before["title"]], [row["id"], row["title"]])
        equal(meta_before["version"], row["version"])

    with check(f"changes the {kind} and reads it back"):
        value = f"{before[field]} (seen by {SELF.name})"
        reason = f"check over {TRANSPORT}"
        written, meta = await answer(
            session,
            f"update_{kind}",
            id=before["id"],
            data={field: value},
            expectedVersion=meta_before["version"],
            reason=reason,
            detail="full",
        )
        assert meta["version"] != meta_before["version"]
        after, meta_after = await answer(session, f"get_{kind}", id=before["id"])
        equal(meta_after["version"], meta["version"])
        equal(after, written)
        metadata = before["metadata"] | {"updatedAt": after["metadata"]["updatedAt"]}
        equal(after, before | {field: value, "metadata": metadata})

        (entry,), _ = await answer(
            session, "get_audit_log", entityType=kind, entityId=before["id"], limit=1, detail="full"
        )
        equal(entry["id"], meta["auditId"])
        equal([entry["action"], entry["source"]], ["update", "mcp"])
        equal(entry["metadata"]["reason"], reason)
        equal(entry["metadata"]["clientId"], f"{SELF.name}/{SELF.version}")
        equal(
            [change for change in entry["changes"] if change["field"] == field],
            [{"field": field, "oldValue": before[field], "newValue": value}],
        )

    with check(f"cannot make a change that breaks the rules of the {kind}, and nothing is written"):
        error = await refusal(
            session, f"update_{kind}", id=before["id"], data={"titel": "x", "metadata": {"status": "live"}}
        )
        equal(error["code"], "VALIDATION_FAILED")
        paths = sorted(violation["path"] for violation in error["details"]["violations"])
        equal(paths, ["metadata.status", "titel"])
        equal((await answer(session, f"get_{kind}", id=before["id"]))[0], after)

    with check(f"cannot change an older version of the {kind}"):
        error = await refusal(
            session,
            f"update_{kind}",
            id=before["id"],
            data={field: "late"},
            expectedVersion=meta_before["version"],
        )
        equal(error["code"], "VERSION_CONFLICT")
        equal(error["details"]["currentVersion"], meta_after["version"])

    with check(f"lists, reads and edits a stored {kind} that breaks every rule"):
        rows, meta = await answer(session, f"list_{kind}s", limit=100, detail="full")
        assert broken in [row["id"] for row in rows] and meta["warnings"]
        stored, meta = await answer(session, f"get_{kind}", id=broken)
        assert meta["warnings"]

        _, meta = await answer(session, f"update_{kind}", id=broken, data={"tags": ["repaired"]})
        assert meta["warnings"]
        data, _ = await answer(session, f"get_{kind}", id=broken)
        updated_at = data["metadata"]["updatedAt"]
        assert updated_at > stored["metadata"]["updatedAt"]
        # An older program wrote `published`, `createdAt` and `updatedAt` at the top level; they follow `metadata`.
        derived = {"published": data["published"], "createdAt": data["createdAt"], "updatedAt": updated_at}
        metadata = stored["metadata"] | {"updatedAt": updated_at}
        # A time that was stored as a number becomes the time that it means.
        if isinstance(metadata["createdAt"], int):
            created = datetime.fromtimestamp(metadata["createdAt"] / 1000, timezone.utc)
            metadata["createdAt"] = created.strftime("%Y-%m-%dT%H:%M:%S.000Z")
        equal(data, stored | {"tags": ["repaired"], "metadata": metadata} | derived)


async def check_added_arguments(session):
    with check("is served with the arguments that n8n adds to every call"):
        added = {
            "sessionId": "8d1f", "action": "sendMessage", "chatInput": "x", "toolCallId": "call_1", "tool": "portfolio",
        }  # fmt: skip
        for tool in ["list_projects", "get_audit_log", "get_audit_stats"]:
            result = await call(session, tool, added)
            assert not result["isError"], result["content"]
            warnings = " ".join(result["structuredContent"]["meta"]["warnings"])
            equal([name for name in added if name not in warnings], [])


async def check_statistics(session):
    with check("finds its changes in the audit statistics"):
        data, _ = await answer(session, "get_audit_stats")
        equal([data["entriesByAction"]["update"], data["entriesBySource"]["mcp"]], [4, 4])
        equal(data["recentActivity"][0]["entityId"], "broken-resource")


async def main():
    connection = AsyncExitStack()
    with check("connects"):
        read, write, *_ = await connection.enter_async_context(TRANSPORTS[TRANSPORT]())
        session = await connection.enter_async_context(ClientSession(read, write, client_info=SELF))
        await session.initialize()
    await check_tools(session)
    for kind, field in KINDS.items():
        await check_kind(session, kind, field)
    await check_added_arguments(session)
    await check_statistics(session)
    with check("disconnects"):
        await connection.aclose()


anyio.run(main)
