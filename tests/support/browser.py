"""Chromium without a window, spoken to as the W3C's WebDriver says (Debian's chromium-driver)."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

TIMEOUT = 120
"""Seconds for whatever the browser is asked: an emulated processor is slow."""
CHROMIUM = "/usr/bin/chromium"


class Browser:
    """A browser with one page.  Use as a context manager."""

    def __init__(self, width: int = 1280, height: int = 900) -> None:
        driver = shutil.which("chromedriver")
        assert driver is not None
        self._driver = subprocess.Popen(
            [driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._driver.stdout is not None
        for line in self._driver.stdout:
            found = re.search(r"started successfully on port (\d+)", line)
            if found:
                self._base = f"http://127.0.0.1:{found[1]}"
                break
        self._session = ""
        made = self.ask("POST", "/session", {"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"args": [
                "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                "--hide-scrollbars", "--lang=en", "--no-first-run", "--disable-extensions",
                "--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND",
                f"--window-size={width},{height}",
            ], **({"binary": CHROMIUM} if Path(CHROMIUM).exists() else {})},
        }}})  # fmt: skip
        self._session = f"/session/{made['sessionId']}"

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the browser and its driver."""
        try:
            self.ask("DELETE", "")
        finally:
            self._driver.terminate()
            self._driver.wait(TIMEOUT)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """A command of the driver's; its value, or AssertionError with what it says."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._base + self._session + path, data, {"Content-Type": "application/json"},
            method=method,
        )  # fmt: skip
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(json.load(error)["value"]) from None

    def load(self, path: Path, more: str = "") -> float:
        """Opens a file; the milliseconds until its script has run and it was laid out."""
        self.ask("POST", "/url", {"url": f"file://{path}{more}"})
        return float(self.js(
            "return performance.getEntriesByType('navigation')[0].loadEventEnd || performance.now()"
        ))

    def js(self, source: str, *words: Any) -> Any:
        """What a function body gives back."""
        return self.ask("POST", "/execute/sync", {"script": source, "args": list(words)})

    def until(self, source: str) -> Any:
        """The value of an expression as soon as it is a true one."""
        due = time.monotonic() + TIMEOUT
        while time.monotonic() < due:
            found = self.js(f"return {source}")
            if found:
                return found
            time.sleep(0.02)
        raise AssertionError(f"never: {source}")

    def log(self) -> list[str]:
        """What stands on the console since the last look."""
        return [f"{line['level']} {line['message']}"
                for line in self.ask("POST", "/se/log", {"type": "browser"})]

    def devtools(self, command: str, **words: Any) -> Any:
        """A command of Chromium's own protocol."""
        return self.ask("POST", "/goog/cdp/execute", {"cmd": command, "params": words})

    def size(self, width: int, height: int) -> None:
        """The page's size, narrower than a window may be, too."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

    def scheme(self, name: str) -> None:
        """Dark or light, as the system would say."""
        self.devtools(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": name}],
        )

    def picture(self, path: Path, whole: bool = False) -> None:
        """A PNG of what is seen, or of the whole page."""
        found = self.devtools(
            "Page.captureScreenshot", format="png", captureBeyondViewport=whole
        )["data"]
        path.write_bytes(base64.b64decode(found))

    def printed(self) -> bytes:
        """The page as a PDF."""
        found = self.devtools("Page.printToPDF", printBackground=True)["data"]
        return base64.b64decode(found)
