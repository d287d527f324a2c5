"""File servers on the loopback interface that count the bytes they send."""

import asyncio
import contextlib
import os
import threading
from contextlib import contextmanager

from aiohttp import web


class RangeServer:
    """Serves a folder over HTTP, with range requests, and counts the bytes sent.

    Args:
        folder: Folder to serve.
        honours_ranges: Whether to support range requests.

    Attributes:
        url: URL of the folder.
        sent: Number of bytes sent in bodies.
        requests: Number of answered requests for files.
    """

    def __init__(self, folder, honours_ranges=True):
        self._folder = folder
        self._honours_ranges = honours_ranges
        self.url = ""
        self.sent = 0
        self.requests = 0

    async def answer(self, request):
        if request.path == "/stuck":
            await asyncio.sleep(3600)
        path = self._folder / request.path.lstrip("/")
        if not path.is_file():
            return web.Response(status=404)
        self.requests += 1
        size = path.stat().st_size
        headers = {"Content-Length": str(size)}
        if self._honours_ranges:
            headers["Accept-Ranges"] = "bytes"
        if request.method == "HEAD":
            return web.Response(headers=headers)
        asked, status = request.http_range, 200
        start, stop, _ = slice(asked.start, asked.stop).indices(size)
        if "Range" in request.headers and self._honours_ranges:
            status = 206
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        else:
            start, stop = 0, size
        with path.open("rb") as file:
            file.seek(start)
            body = file.read(stop - start)
        self.sent += len(body)
        headers["Content-Length"] = str(len(body))
        return web.Response(body=body, status=status, headers=headers)


@contextmanager
def serving(folder, **options):
    """Runs a `RangeServer` in a thread; yields it."""
    server, ready, loop = (
        RangeServer(folder, **options),
        threading.Event(),
        asyncio.new_event_loop(),
    )

    async def start():
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", server.answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()
        return runner

    def run():
        asyncio.set_event_loop(loop)
        runner = loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ready.wait(30)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)


@contextmanager
def s3_store(bucket):
    """Runs a moto server with one bucket that fsspec uses for S3; yields a client."""
    import boto3
    import fsspec
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    access = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = {name: os.environ.get(name) for name in access}
    os.environ.update(access)
    client = boto3.client("s3")
    client.create_bucket(Bucket=bucket)
    try:
        yield client
    finally:
        fsspec.filesystem("s3").clear_instance_cache()
        server.stop()
        for name, value in before.items():
            with contextlib.suppress(KeyError):
                os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
