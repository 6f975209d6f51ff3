"""Guests of the chat at an address, with Python's WebSockets: chatters.py ADDRESS."""

import asyncio
import sys

import websockets

PATIENCE = 60
GUESTS = 20


async def reads(guest, text):
    """Reads until this comes. Everything before it is what others said."""
    while await asyncio.wait_for(guest.recv(), PATIENCE) != text:
        pass


async def main():
    url = f"ws://{sys.argv[1]}/chat"
    guests = [await websockets.connect(url) for _ in range(GUESTS)]
    for number, guest in enumerate(guests, 1):
        await guest.send(f"  I am the {number}.\n")
        for other in guests:
            await reads(other, f"guest {number}: I am the {number}.")
    # It answers pings while it waits.
    await asyncio.wait_for(await guests[0].ping(), PATIENCE)
    # A message in pieces, and one that is too long.
    await guests[1].send(["in ", "three ", "pieces"])
    await reads(guests[0], "guest 2: in three pieces")
    await guests[2].send("x" * 5000)
    await reads(guests[0], "*** guest 3 left")
    await guests[3].close()
    await reads(guests[0], "*** guest 4 left")
    print(f"{GUESTS} guests have talked to each other")
    await asyncio.gather(*(guest.close() for guest in guests))


asyncio.run(main())
