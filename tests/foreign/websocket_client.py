"""A WebSocket caller of a foreign make (websockets). Arguments: port, host, CA, certificate, key, path.

Talks to an echo through the gateway and prints what it saw as JSON.
"""
import asyncio
import json
import ssl
import sys

import websockets

port, host, ca, certificate, key, path = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
context.load_cert_chain(certificate, key)


async def main():
    url = "wss://%s:%s%s" % (host, port, path)
    try:
        async with websockets.connect(url, ssl=context, host="127.0.0.1", max_size=None, compression=None) as socket:
            seen = [await socket.recv()]
            for message in ("one", b"\x00" * 300000):
                await socket.send(message)
                seen.append(len(await socket.recv()))
            await (await socket.ping())
            await socket.send("leave")
            await socket.wait_closed()
            print(json.dumps({"seen": seen, "closed": socket.close_code}), flush=True)
    except websockets.InvalidStatusCode as error:
        print(json.dumps({"refused": error.status_code}), flush=True)


asyncio.run(main())
