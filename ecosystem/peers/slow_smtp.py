"""An SMTP server that accepts a message after 100 ms. Prints its port."""

import asyncio

from aiosmtpd.smtp import SMTP


class Slow:
    async def handle_DATA(self, server, session, envelope):
        await asyncio.sleep(0.1)
        return "250 accepted"


async def main():
    def session():
        return SMTP(Slow(), hostname="localhost")

    loop = asyncio.get_running_loop()
    server = await loop.create_server(session, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
