"""A process of the same user, outside every session: a token in its environment, memory and a descriptor.

It records each signal it gets in a log that probes may read, and shares a SysV segment and queue.
"""

import ctypes
import json
import os
import signal
import sys
import time

arena = json.loads(os.environ["ARENA"])
token = os.environ["VICTIM_TOKEN"].encode()
memory = ctypes.create_string_buffer(token, 128)
r, w = os.memfd_create("victim"), -1
os.write(r, token)


def note(number: int, _frame: object) -> None:
    if number == signal.SIGHUP:
        return
    with open(arena["victim_log"], "a") as f:
        f.write(f"{number}\n")


for number in (
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGIO,
    signal.SIGURG,
    signal.SIGTERM,
    signal.SIGINT,
):
    signal.signal(number, note)
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
key = os.getpid() | 0x52000000
shm = libc.shmget(key, 4096, 0o1600)
at = libc.shmat(shm, None, 0)
ctypes.memmove(at, token, len(token))
libc.shmctl(shm, 0, None)  # IPC_RMID: it goes with us; attached segments stay reachable by id
json.dump(
    {"victim_address": str(ctypes.addressof(memory)), "victim_fd": str(r), "shm_id": str(shm)}, sys.stdout
)
print(flush=True)
while True:
    time.sleep(3600)
