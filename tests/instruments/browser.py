"""Looks at a page in a headless browser: what it says, what it complains of, what it draws.

No driver is needed: the browser opens a copy of the page that carries two small scripts, one that
collects complaints from the first line on and one that asks questions of the finished page. Both
write their answers into attributes of <html>, which the browser prints.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

BROWSERS = (
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
)

LISTEN = """<script>(() => {
  const complaints = [], root = document.documentElement;
  const keep = (text) => {
    complaints.push(String(text));
    root.setAttribute("data-complaints", JSON.stringify(complaints));
  };
  root.setAttribute("data-complaints", "[]");
  for (const level of ["error", "warn"]) console[level] = (...words) => keep(words.join(" "));
  addEventListener("error", (e) => keep(e.message || "cannot load " + e.target.outerHTML), true);
  addEventListener("unhandledrejection", (e) => keep(e.reason));
  document.addEventListener("securitypolicyviolation", (e) => keep("blocked " + e.blockedURI));
})();</script>"""

ASK = """<script>addEventListener("load", () => {
  const root = document.documentElement, answer = {};
  for (const { name } of performance.getEntriesByType("resource")) console.error("fetched", name);
  try { (%s)(answer); } catch (error) { console.error(error); }
  root.setAttribute("data-answer", JSON.stringify(answer));
});</script>"""


class PageFault(AssertionError):
    """The page did not load cleanly."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a page brought back."""

    complaints: tuple[str, ...]
    answer: dict[str, Any]
    picture: bytes


def find_browser() -> str | None:
    """The first installed browser that starts, or None."""
    for name in BROWSERS:
        path = shutil.which(name)
        # Some distributions install a script of that name which only says how to get a browser.
        if path and subprocess.run([path, "--version"], capture_output=True).returncode == 0:
            return path
    return None


def look_at(
    page: Path,
    *,
    browser: str,
    scratch: Path,
    ask: str = "(answer) => {}",
    width: int = 1200,
    height: int = 900,
    dark: bool = False,
    patience: float = 120.0,
) -> Look:
    """Open `page` without a network; `ask` is a JavaScript function that fills an object.

    Raises PageFault when the page never finished loading.
    """
    html = page.read_text(encoding="utf-8")
    head = html.index("<head>") + len("<head>")
    copy, picture = scratch / "copy.html", scratch / "picture.png"
    copy.write_text(html[:head] + LISTEN + ASK % ask + html[head:], encoding="utf-8")
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={scratch / 'profile'}",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        f"--window-size={width},{height}",
        "--virtual-time-budget=5000",
        f"--screenshot={picture}",
        "--dump-dom",
        copy.as_uri(),
    ]
    printed, said = _run(command, page.name, patience)
    marks = _Marks()
    marks.feed(printed)
    if marks.answer is None or marks.complaints is None:
        raise PageFault(f"{page.name} did not finish loading: {said[-2000:]}")
    return Look(
        complaints=tuple(json.loads(marks.complaints)),
        answer=json.loads(marks.answer),
        picture=picture.read_bytes(),
    )


def check_clean(look: Look) -> None:
    """Raise PageFault listing every error, warning, failed load and fetch of the page."""
    if look.complaints:
        raise PageFault("the page complained:\n" + "\n".join(look.complaints))


def _run(command: list[str], name: str, patience: float) -> tuple[str, str]:
    """What the browser printed on its two streams; all its processes are gone afterwards."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes, start_new_session=True) as process:
        try:
            return process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            raise PageFault(f"{name} did not finish loading in {patience:g} s") from None
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)


class _Marks(HTMLParser):
    """Reads the two attributes of <html> that the scripts wrote."""

    complaints: str | None = None
    answer: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "html":
            values = dict(attrs)
            self.complaints = values.get("data-complaints")
            self.answer = values.get("data-answer")
