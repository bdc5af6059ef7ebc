import hashlib
import os
import pathlib
import shutil
import signal
import sys

import pytest

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "golden")]
os.environ["HF_HUB_OFFLINE"] = "1"
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is started with it ignored

import meld


def words(*names: str) -> str:
    return "\0".join((HERE / name).read_text() for name in names)


@pytest.fixture(scope="session")
def key() -> str:
    """Stands for all that the small models and the oracle's results depend on, but for the recipe."""
    return hashlib.sha256(words("models.py", "requirements.txt").encode()).hexdigest()[:16]


@pytest.fixture(scope="session")
def models(key) -> pathlib.Path:
    """Folder with the small models of models.py; not to be written to."""
    folder = meld.CACHE / f"models-{key}"
    if not folder.exists():
        import models

        part = folder.with_name(f"{folder.name}.{os.getpid()}")
        shutil.rmtree(part, ignore_errors=True)
        models.make_all(part)
        part.rename(folder)
    return folder


@pytest.fixture(scope="session")
def oracle(models, key):
    """oracle(text): the folder that mergekit writes for a merge file."""
    store = meld.CACHE / "golden"
    store.mkdir(parents=True, exist_ok=True)

    def result(text: str) -> pathlib.Path:
        found = store / hashlib.sha256(f"{key}\0{words('golden/oracle.py')}\0{text}".encode()).hexdigest()[:24]
        if not found.exists():
            import oracle  # takes seconds: not where everything is cached

            part = found.with_name(f"{found.name}.{os.getpid()}")
            shutil.rmtree(part, ignore_errors=True)
            oracle.merge(text, models, part)
            part.rename(found)
        return found

    return result
