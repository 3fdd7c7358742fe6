#!/usr/bin/env python3
"""Runs the swarm lab with Warren among its drivers: the lab's own arguments, `--driver warren` added to its choices.

    cargo build --release
    python3 benches/swarm/run.py --driver warren --lab lo --n 10 --size 100e6
    python3 benches/swarm/run.py --driver warren --lab ns --n 30 --size 25e6 --up 20 --down 20      (as root)

SWARM_BENCH names the lab's folder (default ../shared/bench/swarm beside the checkout), SWARM_WARREN the binary."""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
LAB = os.environ.get("SWARM_BENCH", os.path.join(TOP, "..", "shared", "bench", "swarm"))
os.environ.setdefault("SWARM_WARREN", os.path.join(TOP, "target", "release", "warren"))

if not os.path.exists(os.path.join(LAB, "run.py")):
    sys.exit(f"the lab is not at {LAB}; set SWARM_BENCH to its folder")
if not os.access(os.environ["SWARM_WARREN"], os.X_OK):
    sys.exit(f"{os.environ['SWARM_WARREN']} is not there; build it with: cargo build --release")
sys.dont_write_bytecode = True
sys.path[:0] = [LAB, HERE]

from drivers import DRIVERS  # noqa: E402
from warren_driver import WarrenDriver  # noqa: E402

DRIVERS[WarrenDriver.name] = WarrenDriver

import runpy  # noqa: E402

# By name, so that the lab's own file in LAB is meant and not this one.
sys.argv[0] = os.path.join(LAB, "run.py")
runpy.run_path(sys.argv[0], run_name="__main__")
