"""Types into a command's terminal as a person does, and reads: typist.py COMMAND [WORD ...]."""

import os
import pty
import random
import select
import sys
import time

LINES = ("ls -l /etc", "uptime", "cat /etc/services", "ps aux", "for n in 1 2 3; do date; sleep 1; done", "df -h", "id")
child, terminal = pty.fork()
if child == 0:
    os.execvp(sys.argv[1], sys.argv[1:])


def read(seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if select.select([terminal], [], [], left)[0]:
            os.read(terminal, 65536)


try:
    read(2)
    while True:
        for letter in random.choice(LINES) + "\n":
            os.write(terminal, letter.encode())
            read(random.uniform(0.05, 0.35))
        read(random.choice((1, 2, 3, 5, 9, 14)))
except OSError:  # the command ended
    sys.exit(1)
