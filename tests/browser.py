"""Chromium without a window, told what to do by its DevTools protocol over two pipes."""

import base64
import json
import os
import shutil
import subprocess
import time

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page:
    """One page of a browser of its own.

    Args:
        address: What to open.
        profile: A folder for the browser's files.
        width, height: Of the window, in pixels.

    Attributes:
        complaints: What the page has said of errors and warnings.
    """

    def __init__(self, address, profile, width=1400, height=1000):
        here, there = os.pipe(), os.pipe()
        # The protocol's pipes are its files 3 and 4, whatever they are here.
        script = f'exec "$0" "$@" 3<&{here[0]} 4>&{there[1]}'
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
        options += ["--no-first-run", "--hide-scrollbars", f"--user-data-dir={profile}"]
        self._process = subprocess.Popen(
            ["bash", "-c", script, CHROMIUM, *options, "about:blank"],
            pass_fds=(here[0], there[1]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(here[0])
        os.close(there[1])
        self._to, self._from = os.fdopen(here[1], "wb", buffering=0), os.fdopen(there[0], "rb")
        self._count, self._session, self.complaints = 0, {}, []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")
        self.resize(width, height)
        self.send("Page.navigate", url=address)
        self.wait(f"location.href.startsWith('{address}') && document.readyState === 'complete'")

    def send(self, method, **parameters):
        """The answer to one command."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters, **self._session}
        self._to.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = json.loads(self._receive())
            if answer.get("id") == self._count:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self._note(answer)

    def _receive(self):
        parts = []
        while (byte := self._from.read(1)) != b"\0":
            assert byte, "the browser has ended"
            parts.append(byte)
        return b"".join(parts)

    def _note(self, event):
        kind, said = event["method"], event["params"]
        level = said.get("type") or said.get("entry", {}).get("level")
        if kind == "Runtime.exceptionThrown" or level in ("error", "warning", "assert"):
            self.complaints.append(said)

    def run(self, expression):
        """The value of an expression in the page."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, expression, seconds=60):
        """Until an expression is true."""
        end = time.monotonic() + seconds
        while not self.run(expression):
            assert time.monotonic() < end, f"never true: {expression}; {self.complaints}"
            time.sleep(0.1)

    def resize(self, width, height):
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def drag(self, selector, points):
        """Press on an element, at parts of its width and height, move along, and let go."""
        self.run(f"document.querySelector('{selector}').scrollIntoView({{block: 'center'}})")
        box = self.run(f"document.querySelector('{selector}').getBoundingClientRect().toJSON()")
        places = [{"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]} for x, y in points]
        mouse = {"button": "left", "buttons": 1, "clickCount": 1}
        self.send("Input.dispatchMouseEvent", type="mousePressed", **mouse, **places[0])
        for place in places[1:]:
            self.send("Input.dispatchMouseEvent", type="mouseMoved", **mouse, **place)
        self.send("Input.dispatchMouseEvent", type="mouseReleased", **mouse, **places[-1])

    def click(self, selector):
        self.drag(selector, [(0.5, 0.5)])

    def screenshot(self, path, whole=True):
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self):
        self._process.terminate()
        self._process.wait(20)
        self._to.close()
        self._from.close()
