"""An HTTP server that answers every request after 100 ms. Prints its port."""

import asyncio

BODY = b"plainsong"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n" % len(BODY)


async def serve(reader, writer):
    try:
        while True:
            request = await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(0.1)
            close = b"connection: close" in request.lower()
            # In two pieces, so that a client is sometimes in the middle of a body.
            writer.write(HEAD + (b"Connection: close\r\n\r\n" if close else b"\r\n") + BODY[:4])
            await writer.drain()
            await asyncio.sleep(0)
            writer.write(BODY[4:])
            await writer.drain()
            if close:
                break
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
