"""Two tabs of a headless Chromium that talk to each other: two_tabs.py ADDRESS [PICTURE].

They are driven over Chromium's own protocol (DevTools). With PICTURE, the second tab is drawn there.
"""

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import websockets

PATIENCE = 45


class Browser:
    """A connection to Chromium. Its tabs share it."""

    def __init__(self, socket):
        self.socket = socket
        self.calls = 0

    async def call(self, method, session=None, **parameters):
        """Has the browser do something, in a tab if one is given."""
        self.calls += 1
        request = {"id": self.calls, "method": method, "params": parameters}
        if session:
            request["sessionId"] = session
        await self.socket.send(json.dumps(request))
        while True:
            answer = json.loads(await self.socket.recv())
            # The others are events.
            if answer.get("id") == self.calls:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    async def open(self, url):
        """A new tab. Returns its session."""
        target = await self.call("Target.createTarget", url=url, width=640, height=420, newWindow=True)
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        session = attached["sessionId"]
        await self.until(session, "document.readyState === 'complete' && socket.readyState === 1")
        return session

    async def until(self, session, condition):
        """Waits until a condition holds in a tab."""
        while True:
            answer = await self.call("Runtime.evaluate", session, expression=condition)
            if answer["result"].get("value") is True:
                return
            await asyncio.sleep(0.05)

    async def say(self, session, text):
        """Types a line as a person does."""
        await self.call("Runtime.evaluate", session, expression="text.focus()")
        await self.call("Input.insertText", session, text=text)
        for kind in ["keyDown", "keyUp"]:
            await self.call(
                "Input.dispatchKeyEvent", session, type=kind, key="Enter", code="Enter",
                text="\r" if kind == "keyDown" else "", windowsVirtualKeyCode=13,
            )

    async def draw(self, session, path):
        picture = await self.call("Page.captureScreenshot", session, format="png")
        path.write_bytes(base64.b64decode(picture["data"]))


def shows(line):
    """The condition that a page shows a line."""
    return f"[...messages.children].some(line => line.innerText === {json.dumps(line)})"


async def talk(folder, address, picture):
    port = Path(folder, "DevToolsActivePort")
    while not port.exists() or len(port.read_text().split()) < 2:
        await asyncio.sleep(0.05)
    number, path = port.read_text().split()
    async with websockets.connect(f"ws://127.0.0.1:{number}{path}", max_size=None) as socket:
        browser = Browser(socket)
        one = await browser.open(f"http://{address}/")
        other = await browser.open(f"http://{address}/")
        await browser.until(one, shows("*** guest 2 joined; others here: 1"))
        for teller, number, line in [
            (one, 1, "Is anybody there?"),
            (other, 2, "Yes, in another tab. <b>Bold</b> stays text."),
            (one, 1, "Both of us are coroutines of one thread. ♪"),
        ]:
            await browser.say(teller, line)
            for tab in [one, other]:
                await browser.until(tab, shows(f"guest {number}{line}"))
        if picture:
            await browser.draw(other, Path(picture))
    print("two tabs have talked to each other")


def main(address, picture=None):
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = ["chromium", "--headless=new", "--remote-debugging-port=0", "--no-first-run",
                   "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={folder}"]
        if os.geteuid() == 0:
            # Its sandbox refuses root.
            command.append("--no-sandbox")
        with open(Path(folder, "log"), "w") as log:
            chromium = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            asyncio.run(asyncio.wait_for(talk(folder, address, picture), PATIENCE))
        except BaseException:
            sys.stderr.write(Path(folder, "log").read_text()[-2000:])
            raise
        finally:
            # It has processes of its own, which are in its session.
            os.killpg(chromium.pid, signal.SIGKILL)
            chromium.wait()


main(*sys.argv[1:])
