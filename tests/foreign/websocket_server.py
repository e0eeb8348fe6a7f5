"""A WebSocket subsystem of a foreign make (websockets): says what it hears, until it hears "leave".

Prints the port it listens on, then a line per connection: its path and the department the gateway named.
"""
import asyncio
import sys

import websockets


async def serve(socket, path):
    print(path, socket.request_headers.get("X-Tallygate-Department", "-"), flush=True)
    await socket.send("welcome")
    async for message in socket:
        if message == "leave":
            return
        await socket.send(message)


async def main():
    async with websockets.serve(serve, "127.0.0.1", 0, max_size=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        # Ends with whoever started it.
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main())
