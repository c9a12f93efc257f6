"""An app that forgets connections, and then needs one more, again and again.

Arguments: the URL of what it forgets, how many, the URL of what it needs, how long it takes to die once it is told
to (it keeps all it has until then), and whether it has learned from a restart: `leaks` or `learns`, with a file
that says that there was one.
"""

import os
import pathlib
import signal
import sys
import threading
import time

import psycopg

forgotten, many, needed, dying, manner, mark = sys.argv[1:7]


def die(*_):
    threading.Timer(float(dying), os._exit, [0]).start()


signal.signal(signal.SIGTERM, die)
mark = pathlib.Path(mark)
has_learned = manner == "learns" and mark.exists()
mark.touch()
kept = []
for _ in range(0 if has_learned else int(many)):
    connection = psycopg.connect(forgotten, autocommit=True)
    connection.execute("SELECT 1")
    kept.append(connection)
print("leaked", flush=True)


def work():
    while True:
        try:
            with psycopg.connect(needed, autocommit=True) as connection:
                connection.execute("SELECT 1")
            print("served", flush=True)
        except psycopg.Error as error:
            print("refused", str(error).splitlines()[0], flush=True)
        time.sleep(0.2)


threading.Thread(target=work, daemon=True).start()
while True:
    time.sleep(1)
