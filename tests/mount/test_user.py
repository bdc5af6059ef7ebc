"""An ordinary user mounts, reads and unmounts through fusermount3.

As root: a user is made for it, who sees /dev/fuse as everybody's (on machines where it is root's alone) in a mount
namespace that ends with the test.
"""

import os
import pathlib
import pwd
import shutil
import subprocess
import tempfile

import meld
import pytest

SCRIPT = pathlib.Path(__file__).with_name("user.sh")
USER = "meldfs-test"
NAMESPACE = """\
set -eu
mount --make-rprivate / 2>/dev/null || mount --make-private /dev  # the latter in a chroot
[ -e /etc/mtab ] || ln -s /proc/self/mounts /etc/mtab  # fusermount3 wants it; a bare root may not have it yet
if [ "$(stat -c %a /dev/fuse)" != 666 ]; then
    mknod "$1/fuse" c 10 229
    chmod 666 "$1/fuse"
    mount --bind "$1/fuse" /dev/fuse
fi
shift
uid=$1 gid=$2 home=$3
shift 3
exec setpriv --reuid "$uid" --regid "$gid" --clear-groups --inh-caps=-all \\
    env -i PATH="$PATH" HOME="$home" LANG=C.UTF-8 "$@"
"""


@pytest.fixture
def folder():
    """Where another user may look, unlike pytest's own."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="meldfs-user."))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def the_user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(USER)
    except KeyError:
        subprocess.run(["useradd", "--system", "--no-create-home", USER], check=True)
        return pwd.getpwnam(USER)


def test_ordinary_user(models, folder):
    shutil.copytree(models / "llama/alpha", folder / "models/alpha")
    shutil.copytree(models / "llama/beta", folder / "models/beta")
    shutil.copy(shutil.which(meld.BINARY), folder / "meldfs")
    shutil.copy(SCRIPT, folder / "user.sh")
    recipe = folder / "recipe.yml"
    recipe.write_text(
        "merge_method: linear\nparameters: {weight: 0.5}\ndtype: bfloat16\n"
        "models:\n  - model: models/alpha\n  - model: models/beta\n")  # fmt: skip
    meld.good("export", recipe, folder / "expected", cwd=folder)
    subprocess.run(["chmod", "-R", "a+rX", str(folder)], check=True)
    (folder / "home").mkdir()
    words = [folder / "user.sh", folder / "meldfs", recipe, folder / "expected", folder / "home", folder.name]
    if os.geteuid() == 0:
        user = the_user()
        os.chown(folder / "home", user.pw_uid, user.pw_gid)
        words = ["unshare", "-m", "--propagation", "unchanged", "sh", "-c", NAMESPACE, "sh", folder, user.pw_uid,
                 user.pw_gid, folder / "home", *words]  # fmt: skip
    log = folder / "log"  # a file: a daemon that kept a pipe open would hold up the test
    with log.open("w") as out:
        done = subprocess.run(list(map(str, words)), stdout=out, stderr=out, timeout=meld.PATIENCE)
    assert done.returncode == 0, log.read_text()
    meld.until(lambda: not meld.daemons(folder.name), "the user's daemon to end")
