"""A process with a scope, and a child that outlives it."""

import os
import time

import execpool

scope = execpool.ExecutionScope("parent").__enter__()
child = os.fork()
if child:
    print(child, flush=True)
else:
    # Not to keep the test waiting for the end of the output.
    os.close(1)
# Longer than anybody waits for what is to happen before.
time.sleep(300)
