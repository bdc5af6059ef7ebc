"""A page in headless Chromium: what it looks like, and what it made of itself."""

import json
import os
import pathlib
import re
import shutil
import struct
import subprocess
from dataclasses import dataclass

import pytest

WINDOWS = [(1280, False), (1280, True), (400, False), (400, True)]  # width; dark

# The page is shown in a frame: a window of Chromium's is 500 pixels wide at least. Before anything else in the page:
WATCH = """<script>
const tell = (what) => parent.postMessage(what, "*");
addEventListener("error", (e) => tell({error: e.message || "a resource"}), true);
addEventListener("securitypolicyviolation", (e) => tell({error: e.blockedURI}));
addEventListener("load", () => tell({dom: document.documentElement.outerHTML, width: document.documentElement.scrollWidth}));
</script>
"""
FRAME = r"""<!doctype html><html><head><meta name="color-scheme" content="light dark"><title>frame</title><style>
html, body {{ margin: 0; overflow: hidden }} iframe {{ border: 0; display: block; width: {width}px; height: {height}px }}
</style></head><body><script>
const told = [];
addEventListener("message", (e) => {{ told.push(e.data); document.getElementById("told").textContent = JSON.stringify(told).replaceAll("<", "\\u003c"); }});
</script><iframe src="{page}"></iframe><script type="application/json" id="told">[]</script></body></html>
"""


@dataclass
class Look:
    dom: str
    errors: list[str]  # of scripts, and requests that were refused
    width: int  # that the page takes: more than the window's where it overflows
    picture: pathlib.Path


def program() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not found:
        pytest.skip("no chromium here (apt install chromium)")
    return found


def chromium(page: pathlib.Path, profile: pathlib.Path, width: int, height: int, dark: bool, *flags: str):
    return subprocess.run(
        [program(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr",
         f"--user-data-dir={profile}", f"--blink-settings=preferredColorScheme={0 if dark else 1}",
         f"--window-size={width},{height}", *flags, page.as_uri()],
        timeout=120, text=True, stdin=subprocess.DEVNULL, capture_output=True, env=os.environ | {"HOME": str(profile)})  # fmt: skip


def look(page: pathlib.Path, folder: pathlib.Path, width: int = 1280, height: int = 2000, dark: bool = False) -> Look:
    """Opens a copy in `folder`, where the picture is left."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{page.stem}-{width}-{'dark' if dark else 'light'}"
    copy, frame, picture = folder / f"{name}.html", folder / f"{name}-frame.html", folder / f"{name}.png"
    copy.write_text(page.read_text().replace("<head>", "<head>" + WATCH, 1))
    frame.write_text(FRAME.format(width=width, height=height, page=copy.name))
    profile = folder / "profile"
    done = chromium(frame, profile, width, height, dark, f"--screenshot={picture}")
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    done = chromium(frame, profile, width, height, dark, "--dump-dom")
    found = re.search(r'id="told">(.*?)</script>', done.stdout, re.S)
    assert found, done.stderr[-2000:]
    told = json.loads(found[1])
    seen = [what for what in told if "dom" in what]
    assert len(seen) == 1, done.stdout[-2000:]
    return Look(seen[0]["dom"], [what["error"] for what in told if "error" in what] + console, seen[0]["width"], picture)


def size(png: pathlib.Path) -> tuple[int, int]:
    data = png.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])
