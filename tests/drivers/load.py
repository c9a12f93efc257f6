"""Transactions of several threads for some seconds, or until SIGALRM; any failure ends it with a traceback.

Usage: load.py URL SECONDS
"""

import signal
import sys
import threading
import time

import psycopg

url, seconds = sys.argv[1], float(sys.argv[2])
until = time.monotonic() + seconds
done, failed = [], []
enough = threading.Event()
signal.signal(signal.SIGALRM, lambda *_: enough.set())


def work(number):
    try:
        with psycopg.connect(url, autocommit=False) as connection:
            count = 0
            while time.monotonic() < until and not enough.is_set():
                with connection.transaction(), connection.cursor() as cursor:
                    cursor.execute("SELECT set_config('app.thread', %s, true)", [str(number)])
                    for _ in range(3):
                        cursor.execute("SELECT current_setting('app.thread')")
                        assert cursor.fetchone() == (str(number),)
                count += 1
            done.append(count)
    except BaseException as error:
        failed.append(error)
        raise


threads = [threading.Thread(target=work, args=[number]) for number in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(f"processed {sum(done)}")
sys.exit(1 if failed else 0)
