"""The measurements that scripts/bench.sh describes. It needs only Python's standard library."""

import asyncio
import json
import multiprocessing
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time

PROJECTS = 500
ROUNDS = 5
CALLS = 4000  # of the well-behaved client, in each round, both alone and beside the bad connections
BAD = 2000
HEAD = "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"


def project(number):
    with open("examples/content/projects.json", encoding="utf-8") as file:
        return {**json.load(file)[0], "id": f"client-{number}"}


def memory(pid):
    """Resident memory in megabytes."""
    return int(subprocess.check_output(["ps", "-o", "rss=", "-p", str(pid)])) / 1024


class Client:
    """A client of /mcp that makes all its calls over one connection."""

    async def open(self, port):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        return self

    async def get(self, request, project):
        call = {"name": "get_project", "arguments": {"id": project}}
        body = json.dumps({"jsonrpc": "2.0", "id": request, "method": "tools/call", "params": call})
        self.writer.write(f"{HEAD}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(re.search(rb"content-length: *(\d+)", head, re.I)[1])
        answer = json.loads(await self.reader.readexactly(length))
        assert answer["id"] == request and answer["result"]["structuredContent"]["data"]["id"] == project, answer
        return answer


async def latencies(port):
    client = await Client().open(port)
    times = []
    for request in range(CALLS):
        start = time.perf_counter()
        await client.get(request, "client-0")
        times.append((time.perf_counter() - start) * 1000)
    client.writer.close()
    return sorted(times)


async def crowd(port, clients, calls):
    async def one(number):
        client = await Client().open(port)
        for request in range(calls):
            await client.get(request, f"client-{number}")
        client.writer.close()

    start = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(clients)))
    return clients * calls / (time.perf_counter() - start)


def misbehave(port, ready):
    """Keeps 2,000 bad connections open, reconnecting whenever the server closes one. Runs in a process of its own."""

    async def bad(number, opened):
        message = f"{HEAD}Content-Length: 100\r\n\r\n{{".encode()
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                opened.release()
                if number % 2 == 0:
                    await reader.read()  # sends nothing until the server closes the connection
                for byte in message if number % 2 else b"":
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(1)
                writer.close()
            except OSError:
                await asyncio.sleep(1)

    async def all_of_them():
        opened = asyncio.Semaphore(0)
        tasks = [asyncio.create_task(bad(number, opened)) for number in range(BAD)]
        for _ in tasks:
            await opened.acquire()
        ready.set()
        await asyncio.gather(*tasks)

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    asyncio.run(all_of_them())


def percentile(times, part):
    return times[int(len(times) * part)]


def main(program):
    program = os.path.abspath(program)
    with tempfile.TemporaryDirectory() as folder:
        content, store = os.path.join(folder, "content"), f"sqlite:{folder}/content.db"
        os.mkdir(content)
        with open(os.path.join(content, "projects.json"), "w", encoding="utf-8") as file:
            json.dump([project(number) for number in range(PROJECTS)], file)
        subprocess.run([program, "import", content, "--store", store], check=True, capture_output=True)
        server = subprocess.Popen(
            [program, "http", "--listen", "127.0.0.1:0", "--store", store, "--log", "warn"], stderr=subprocess.PIPE, text=True
        )
        try:
            line = server.stderr.readline()
            while "listening on" not in line:
                line = server.stderr.readline()
            return measure(server, int(re.search(r"http://[^ ,/]*:(\d+)", line)[1]))
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(20)


def measure(server, port):
    asyncio.run(latencies(port))  # warm up
    alone, beside = [], []
    for number in range(ROUNDS):
        alone.append(asyncio.run(latencies(port)))
        quiet = memory(server.pid)
        ready = multiprocessing.Event()
        attacker = multiprocessing.Process(target=misbehave, args=(port, ready), daemon=True)
        attacker.start()
        assert ready.wait(60), "the server did not accept the bad connections"
        beside.append(asyncio.run(latencies(port)))
        busy = memory(server.pid)
        attacker.terminate()
        attacker.join()
        print(
            f"round {number + 1}: alone p50 {percentile(alone[-1], 0.5):.2f} p99 {percentile(alone[-1], 0.99):.2f} ms, {quiet:.0f} MB;"
            f" beside {BAD} bad connections p50 {percentile(beside[-1], 0.5):.2f} p99 {percentile(beside[-1], 0.99):.2f} ms, {busy:.0f} MB"
        )
    before, after = (statistics.median(percentile(times, 0.99) for times in each) for each in (alone, beside))
    print(f"p99 of a well-behaved client: alone {before:.2f} ms, beside {BAD} bad connections {after:.2f} ms, ratio {after / before:.2f} (at most 2)")

    rate = asyncio.run(crowd(port, 500, 200))
    print(f"100,000 calls of 500 clients with the same ids: every client got its own answers, {rate:.0f} calls/s, {memory(server.pid):.0f} MB")
    return 0 if after <= 2 * before else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
