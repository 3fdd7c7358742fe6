#!/usr/bin/env python3
"""What becomes of a swarm of real processes when nodes or the origin are killed with -9: one JSON line.

    python3 benches/swarm/churn.py --lab ns --n 30 --size 100e6 --up 20 --down 20 --nodes 0.5      (as root)
    python3 benches/swarm/churn.py --lab ns --n 30 --size 25e6 --up 20 --down 20 --source 1.0

`--nodes SHARE` kills a third of the nodes when they have that share of the payload in the mean, and starts them again on
their folders `--back` seconds later; `--source COPIES` kills the origin when it has sent so many copies. Without either
nothing is killed: the time to compare with. Copies are counted as the lab's bridge sees them, less 2 % for framing, or,
without namespaces, at once when the first node is complete. The lab is found as benches/swarm/run.py finds it.

`fetched_again` is what a killed node received over both of its lives, against one copy and what the protocol adds: pieces
that were verified before are not among it if it is about 1."""

import argparse
import filecmp
import json
import os
import shutil
import statistics
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
LAB = os.environ.get("SWARM_BENCH", os.path.join(TOP, "..", "shared", "bench", "swarm"))
os.environ.setdefault("SWARM_WARREN", os.path.join(TOP, "target", "release", "warren"))
if not os.path.exists(os.path.join(LAB, "netlab.py")):
    sys.exit(f"the lab is not at {LAB}; set SWARM_BENCH to its folder")
sys.dont_write_bytecode = True
sys.path[:0] = [LAB, HERE]

from netlab import Lab, bound, wait_for  # noqa: E402
from warren_driver import WarrenDriver  # noqa: E402

# What headers and acknowledgements add to a byte of payload, as the interfaces count: segments leave them unsplit.
FRAMING = 1.02
# An origin that has sent nothing for so long has given all.
QUIET_S = 0.15


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lab", default="ns", choices=["lo", "ns"])
    parser.add_argument("--n", type=int, default=30)
    parser.add_argument("--size", type=float, default=100e6)
    parser.add_argument("--up", type=float, help="Mbit/s of each host")
    parser.add_argument("--down", type=float)
    parser.add_argument("--nodes", type=float, help="share of the payload at which a third is killed")
    parser.add_argument("--back", type=float, default=5)
    parser.add_argument("--source", type=float, help="copies sent at which the origin is killed")
    parser.add_argument("--workdir", default="/dev/shm/churn")
    parser.add_argument("--timeout", type=float, default=300)
    return parser.parse_args()


class Run:
    """One payload through one swarm, with what is killed in it."""

    def __init__(self, args, lab, payload):
        self.args, self.lab, self.size = args, lab, int(args.size)
        self.driver = WarrenDriver(lab, payload, self.size, 1 << 20, [])
        self.victims, self.killed_at, self.back_at = [], None, None
        # Copies that the origin had sent, and when there were last more of them.
        self.sent = (0.0, 0.0)
        self.finish = {}

    def start(self):
        self.driver.prepare()
        self.driver.start_control()
        for host in self.lab.nodes:
            self.driver.start_node(host)
        for host in self.lab.nodes:
            if not wait_for(lambda: self.driver.ready(host), 60, 0.05):
                sys.exit(f"{host.name} did not come up")
        time.sleep(1)
        self.before, self.began = self.lab.counters(), time.time()
        self.driver.publish()

    def moved(self):
        """(share of the payload that nodes received in the mean, copies that the origin sent)."""
        now = self.lab.counters()
        if now is None:
            return None
        got = [self.received(now, host) for host in self.lab.nodes]
        sent = (now[0][0] - self.before[0][0]) / FRAMING / self.size
        return statistics.mean(got), sent

    def received(self, counters, host):
        return (counters[host.idx][1] - self.before[host.idx][1]) / FRAMING / self.size

    def churn(self, seconds):
        """Kills and starts what is due."""
        moved = self.moved()
        # Without counters of the network the first complete node says that every piece is out.
        got, sent = moved or (float(bool(self.finish)), float(bool(self.finish)))
        if self.killed_at is None and self.args.nodes is not None and got >= self.args.nodes:
            self.killed_at, self.victims = seconds, self.lab.nodes[::3]
            for host in self.victims:
                host.kill()
        if sent > self.sent[0] + 0.002:
            self.sent = (sent, seconds)
        # An origin that has given each piece stops by itself: then its time has come, too.
        has_given = sent >= 0.97 and seconds >= self.sent[1] + QUIET_S
        if self.killed_at is None and self.args.source is not None and (sent >= self.args.source or has_given):
            self.killed_at = seconds
            self.lab.source.kill()
        if self.victims and self.back_at is None and seconds >= self.killed_at + self.args.back:
            self.back_at = seconds
            for host in self.victims:
                self.driver.restart(host)

    def wait(self):
        while len(self.finish) < self.args.n and time.time() - self.began < self.args.timeout:
            for host in self.lab.nodes:
                done = host.idx not in self.finish and self.driver.done(host)
                if done:
                    self.finish[host.idx] = done - self.began
            self.churn(time.time() - self.began)
            time.sleep(0.02)

    def record(self):
        args = self.args
        record = {"lab": args.lab, "n": args.n, "size": self.size, "nodes": args.nodes, "source": args.source,
                  "finished": len(self.finish), "killed_at": self.killed_at, "back_at": self.back_at,
                  "last": max(self.finish.values(), default=None)}
        record["bad"] = [host.name for host in self.lab.nodes if host.idx in self.finish
                         and not filecmp.cmp(self.driver.payload, self.driver.file_of(host), shallow=False)]
        counters = self.lab.counters()
        if counters and self.victims:
            again = [self.received(counters, host) for host in self.victims]
            record["fetched_again"] = [round(statistics.mean(again), 3), round(max(again), 3)]
            record["victims_last"] = max(self.finish.get(host.idx, args.timeout) for host in self.victims)
        if args.up and args.down:
            rates = [args.up * 1e6] * args.n
            record["bound"] = bound(self.size, args.up * 1e6, rates, [args.down * 1e6] * args.n)[0]
        return {key: round(value, 2) if isinstance(value, float) else value for key, value in record.items()}


def main():
    args = arguments()
    work = os.path.join(args.workdir, f"run{os.getpid()}")
    os.makedirs(work)
    try:
        payload = os.path.join(work, "payload.bin")
        with open(payload, "wb") as file:
            for _ in range(int(args.size) // 1_000_000):
                file.write(os.urandom(1_000_000))
            file.write(os.urandom(int(args.size) % 1_000_000))
        up, down = (rate and rate * 1e6 for rate in (args.up, args.down))
        with Lab(args.lab, args.n, work, up=up, down=down, src_up=up, src_down=down) as lab:
            run = Run(args, lab, payload)
            run.start()
            run.wait()
            print(json.dumps(run.record()), flush=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
