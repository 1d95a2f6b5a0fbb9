"""A web application behind TLS (uvicorn, starlette): web_app.py CHAIN ADDRESS PORT.

/size/N gives N bytes, /wait/S answers after S seconds, /events streams events, /echo gives back what it got, padded,
/call answers a JSON call, /page is a page whose script keeps a browser busy.
"""

import asyncio
import json
import os
import random
import sys
from collections.abc import AsyncIterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

PAGE = """<!doctype html><title>page</title><link rel=icon href="data:,"><p>page<script>
const pause = s => new Promise(done => setTimeout(done, s * 1000));
(async () => { for (let n = 0;; n++) {
  const sizes = [...Array(6)].map((_, i) => 2000 + 9000 * i + Math.floor(Math.random() * 4000));
  await Promise.all(sizes.map(size => fetch('/size/' + size)));
  await fetch('/echo', {method: 'POST', body: 'x'.repeat(300 + Math.floor(Math.random() * 2500))});
  await pause(2 + Math.random() * 8);
} })();
(async () => { for (;;) { await fetch('/wait/' + (5 + Math.floor(Math.random() * 8))); } })();
new EventSource('/events');
</script>"""


async def size(request: Request) -> Response:
    return Response(os.urandom(int(request.path_params["count"])), media_type="application/octet-stream")


async def wait(request: Request) -> Response:
    await asyncio.sleep(float(request.path_params["seconds"]))
    return JSONResponse({"news": "x" * random.randrange(20, 400)})


async def events(_request: Request) -> Response:
    async def stream() -> AsyncIterator[str]:
        while True:
            await asyncio.sleep(random.uniform(1, 7))
            yield f"data: {'x' * random.randrange(10, 500)}\n\n"

    return StreamingResponse(stream(), media_type="text/event-stream")


async def echo(request: Request) -> Response:
    body = await request.body()
    return Response(body[:4000] + bytes(random.randrange(400)))


async def call(request: Request) -> Response:
    asked = json.loads(await request.body())
    return JSONResponse({"jsonrpc": "2.0", "id": asked["id"], "result": "x" * asked["params"].get("answer", 200)})


async def page(_request: Request) -> Response:
    return HTMLResponse(PAGE)


app = Starlette(
    routes=[
        Route("/", page),
        Route("/size/{count:int}", size),
        Route("/wait/{seconds:float}", wait),
        Route("/events", events),
        Route("/echo", echo, methods=["POST", "PUT"]),
        Route("/call", call, methods=["POST"]),
    ]
)

if __name__ == "__main__":
    chain, address, port = sys.argv[1:]
    uvicorn.run(app, host=address, port=int(port), ssl_certfile=chain, log_level="warning", timeout_keep_alive=120)
