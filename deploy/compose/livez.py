"""A health check of the app's container by which execpool's reactor has it restarted.

    python livez.py http://execpool:9464/livez/app

Docker marks a container that is not healthy, and leaves it at that. So where the answer is 503,
which is the reactor's decision, this ends the container's processes: `restart: always` starts the
container anew, and `init: true` lets its first process be ended. No answer at all is none, as
execpool may be restarting. The 503 lasts until all that was open is gone, which others may keep
open: the container is ended once for it, and a file in the temporary directory, which outlives
that, says that it was.
"""

import os
import signal
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

# How long the app has for its goodbye.
GRACE = 10.0
# There from the restart to the next 200.
MARK = Path(tempfile.gettempdir(), "execpool-restarted")


def main(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=3):
            MARK.unlink(missing_ok=True)
            return 0
    except urllib.error.HTTPError as answer:
        print(f"{url} answers {answer.code}: {answer.read(1000).decode(errors='replace').strip()}", flush=True)
        if answer.code == 503 and not MARK.exists():
            MARK.touch()
            end_the_container()
    except OSError as error:
        print(f"{url} does not answer: {error}", flush=True)
    return 1


def end_the_container() -> None:
    """Does not return where that goes well: what ends the container ends this."""
    os.kill(1, signal.SIGTERM)
    time.sleep(GRACE)
    # All but the first process and this one; the first ends with its child.
    os.kill(-1, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
