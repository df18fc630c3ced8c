"""A layer 2 switch in user space over TAP devices, for kernels without netem: delay, jitter, loss and cuts, each for one
direction between two machines. Run inside the namespace where the devices are to appear; ends when stdin closes.

usage: lan-switch.py COUNT SEED
Makes tap0, tap1, ... and prints "ready". Then one JSON object a line on stdin:
{"from": [0], "to": [1, 2], "delayMs": 100, "jitterMs": 10, "loss": 0.05, "cut": false} replaces the rules between them.
"""

import fcntl
import heapq
import json
import os
import random
import select
import struct
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TAP = 2
IFF_NO_PI = 0x1000
FRAME_BYTES = 65536
# Of one device at a time, so that a flood on one port does not starve the others.
BURST = 64


def open_taps(count):
    if not os.path.exists("/dev/net/tun"):
        os.makedirs("/dev/net", exist_ok=True)
        os.mknod("/dev/net/tun", 0o600 | 0o020000, os.makedev(10, 200))
    taps = []
    for index in range(count):
        tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", b"tap%d" % index, IFF_TAP | IFF_NO_PI))
        taps.append(tap)
    return taps


class Switch:
    def __init__(self, taps, seed):
        self.taps = taps
        self.port_of = {tap: index for index, tap in enumerate(taps)}
        self.machine_at = {}
        self.rules = {}
        self.late = []
        self.sent = 0
        self.random = random.Random(seed)

    def shape(self, rule):
        for source in rule["from"]:
            for target in rule["to"]:
                self.rules[(source, target)] = rule

    def receive(self, tap):
        source = self.port_of[tap]
        for _ in range(BURST):
            try:
                frame = os.read(tap, FRAME_BYTES)
            except OSError:  # Nothing more, or the machine is being taken away.
                return
            self.machine_at[frame[6:12]] = source
            known = None if frame[0] & 1 else self.machine_at.get(frame[0:6])
            targets = range(len(self.taps)) if known is None else [known]
            for target in targets:
                if target != source:
                    self.forward(source, target, frame)

    def forward(self, source, target, frame):
        rule = self.rules.get((source, target))
        if rule is None:
            self.deliver(target, frame)
            return
        if rule["cut"] or self.random.random() < rule["loss"]:
            return
        delay_ms = rule["delayMs"] + self.random.uniform(-1, 1) * rule["jitterMs"]
        if delay_ms <= 0:
            self.deliver(target, frame)
            return
        self.sent += 1
        heapq.heappush(self.late, (time.monotonic() + delay_ms / 1000, self.sent, target, frame))

    def deliver_late(self):
        while self.late and self.late[0][0] <= time.monotonic():
            _, _, target, frame = heapq.heappop(self.late)
            self.deliver(target, frame)

    def wait_s(self):
        return max(0, self.late[0][0] - time.monotonic()) if self.late else None

    def deliver(self, target, frame):
        try:
            os.write(self.taps[target], frame)
        except OSError:  # A full queue or a machine that is down loses frames, as on any LAN.
            pass


def main():
    taps = open_taps(int(sys.argv[1]))
    switch = Switch(taps, int(sys.argv[2]))
    orders = sys.stdin.fileno()
    os.set_blocking(orders, False)
    print("ready", flush=True)
    rest = b""
    while True:
        switch.deliver_late()
        readable, _, _ = select.select([*taps, orders], [], [], switch.wait_s())
        for source in readable:
            if source != orders:
                switch.receive(source)
                continue
            read = os.read(orders, FRAME_BYTES)
            if not read:
                return
            *lines, rest = (rest + read).split(b"\n")
            for line in lines:
                switch.shape(json.loads(line))
            print("done", flush=True)


main()
