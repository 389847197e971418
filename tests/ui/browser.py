"""Chromium without a window, driven through its DevTools protocol with the standard library alone."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE = 60  # seconds after which a browser, or a page, is taken to hang


def chromium() -> str | None:
    """Its program, where there is one."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """A browser with one page, for ``with``.

    Attributes:
        errors: what the page put into its console as an error, and exceptions that nobody caught.
        addresses: all that were asked for, in order; those in the page itself (``data:``) are none.
    """

    def __init__(self, program: str, home: Path) -> None:
        self.errors: list[str] = []
        self.addresses: list[str] = []
        self._number = 0
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        flags += ["--disable-background-networking", "--disable-component-update", "--no-proxy-server"]
        flags += ["--remote-debugging-port=0", f"--user-data-dir={home}", "about:blank"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen([program, *flags], start_new_session=True, **quiet)
        try:
            self._socket = _opened(_page(home / "DevToolsActivePort"))
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._end()

    def _end(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def call(self, method: str, **given: Any) -> dict[str, Any]:
        """A method of the protocol; what happens meanwhile is noted."""
        self._number += 1
        _send(self._socket, json.dumps({"id": self._number, "method": method, "params": given}))
        while (answer := json.loads(_received(self._socket))).get("id") != self._number:
            self._note(answer["method"], answer["params"])
        assert "error" not in answer, answer
        return answer["result"]

    def _note(self, event: str, told: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent" and not told["request"]["url"].startswith("data:"):
            self.addresses.append(told["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(told["exceptionDetails"]))
        elif (event == "Runtime.consoleAPICalled" and told["type"] == "error") or (
            event == "Log.entryAdded" and told["entry"]["level"] == "error"
        ):
            self.errors.append(json.dumps(told))

    def value(self, code: str) -> Any:
        """What an expression of JavaScript gives."""
        found = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, code: str) -> None:
        """Waits until an expression gives something that is true."""
        until = time.monotonic() + PATIENCE
        while not self.value(f"Boolean({code})"):
            if time.monotonic() > until:
                raise TimeoutError(f"{code} does not come true; errors: {self.errors}")
            time.sleep(0.1)

    def width(self, pixels: int) -> None:
        """Makes the window so wide."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=pixels, height=900, deviceScaleFactor=1, mobile=pixels < 600
        )

    def type(self, selector: str, text: str) -> None:
        """Types a text into a field in place of what is there, and leaves it."""
        found = f"document.querySelector({json.dumps(selector)})"
        self.value(f"{found}.focus(), {found}.select()")
        self.call("Input.insertText", text=text)
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13)
        self.value(f"{found}.blur()")

    def picture(self, file: Path) -> None:
        """Writes the whole page as a PNG."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))


def _page(port: Path) -> str:
    """The address of the page's web socket, once the browser is up."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if port.is_file() and (lines := port.read_text().split()):
            direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with direct.open(f"http://127.0.0.1:{lines[0]}/json/list", timeout=PATIENCE) as answer:
                pages = [page for page in json.load(answer) if page["type"] == "page"]
            if pages:
                return str(pages[0]["webSocketDebuggerUrl"])
        time.sleep(0.05)
    raise TimeoutError("the browser does not start")


def _opened(address: str) -> socket.socket:
    """A web socket (RFC 6455) after its handshake."""
    host, _, path = address.removeprefix("ws://").partition("/")
    name, _, port = host.partition(":")
    found = socket.create_connection((name, int(port)), timeout=PATIENCE)
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [f"GET /{path} HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade"]
    lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", ""]
    found.sendall("\r\n".join(lines).encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += _exactly(found, 1)
    assert b" 101 " in answer.splitlines()[0], answer
    return found


def _send(to: socket.socket, text: str) -> None:
    data, mask = text.encode(), os.urandom(4)
    size = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xff" + struct.pack("!Q", len(data))
    masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
    to.sendall(b"\x81" + size + mask + masked)


def _received(of: socket.socket) -> str:
    """A message, which may come in several parts."""
    whole = b""
    while True:
        first, size = _exactly(of, 2)
        if size == 126:
            (size,) = struct.unpack("!H", _exactly(of, 2))
        elif size == 127:
            (size,) = struct.unpack("!Q", _exactly(of, 8))
        data = _exactly(of, size)
        if first & 0x0F in (0, 1):  # a text or the rest of one; the others are of the connection itself
            whole += data
            if first & 0x80:
                return whole.decode()


def _exactly(of: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = of.recv(size - len(data))
        if not part:
            raise ConnectionError("the browser hung up")
        data += part
    return bytes(data)
