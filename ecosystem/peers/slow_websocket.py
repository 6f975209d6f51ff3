"""A WebSocket server that returns every message after 100 ms. Prints its port."""

import asyncio

import websockets


async def serve(socket, *_):
    async for message in socket:
        await asyncio.sleep(0.1)
        await socket.send(message)


async def main():
    async with websockets.serve(serve, "127.0.0.1", 0, backlog=4096, compression=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()


asyncio.run(main())
