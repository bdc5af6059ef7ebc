"""Run in a mount namespace of its own, with a /dev/log that only it and the daemon see:
syslog.py BINARY RECIPE POINT SOURCE. Mounts, spoils the source, and prints what the daemon told syslog."""

import os
import pathlib
import socket
import subprocess
import sys

binary, recipe, point, source = sys.argv[1:]
dev = pathlib.Path(point + ".dev")
dev.mkdir()
subprocess.run(["mount", "--rbind", "/dev", dev], check=True)
subprocess.run(["mount", "-t", "tmpfs", "meldfs-test", "/dev"], check=True)
for name in ("null", "fuse", "urandom"):
    pathlib.Path("/dev", name).touch()
    subprocess.run(["mount", "--bind", dev / name, f"/dev/{name}"], check=True)
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
log.bind("/dev/log")
log.settimeout(60)
quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
with open(point + ".stderr", "w") as stderr:
    subprocess.run([binary, "mount", recipe, point], check=True, stderr=stderr, **quiet)
try:
    os.truncate(source, 5000)
    try:
        pathlib.Path(point, "model.safetensors").read_bytes()
    except OSError as error:
        print(error.strerror)
    print(log.recv(4096).decode())
finally:
    subprocess.run([binary, "umount", point], check=True, **quiet)
