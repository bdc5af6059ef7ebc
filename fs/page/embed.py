"""embed.py PAGE STYLE SCRIPT HEADER: the page of `meldfs report` as two C strings, with a gap for the data."""

import pathlib
import sys


def array(name: str, text: str) -> str:
    data = text.encode() + b"\0"
    lines = [", ".join(map(str, data[i : i + 24])) for i in range(0, len(data), 24)]
    return f"static const char {name}[] = {{\n    " + ",\n    ".join(lines) + "};\n"


def main(page, style, script, header):
    text, css, js = (pathlib.Path(path).read_text(encoding="utf-8") for path in (page, style, script))
    assert (css + js).isascii(), "a char array holds ASCII only"
    text = text.replace("@STYLE@", css).replace("@SCRIPT@", js)
    head, tail = text.split("@DATA@")
    pathlib.Path(header).write_text(array("page_head", head) + array("page_tail", tail), encoding="ascii")


main(*sys.argv[1:])
