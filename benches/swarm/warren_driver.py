"""Warren as a driver of the swarm lab: a broker on the unlimited host, `warren node` on each node, `warren send` on the
source. A driver's duties are described in the lab's drivers/base.py."""

import os
import time

from drivers.base import Driver

WARREN = os.environ["SWARM_WARREN"]
GROUP = "bench"
AMQP_PORT = 20_998


class WarrenDriver(Driver):
    """opts: threshold=BYTES (smallest payload that goes through the swarm)."""

    name = "warren"

    def prepare(self):
        self.broker = f"amqp://guest:guest@{self.lab.ctl.ip}:{AMQP_PORT}/%2F"
        for host in self.lab.nodes:
            os.makedirs(os.path.join(host.dir, "data"), exist_ok=True)

    def start_control(self):
        ctl = self.lab.ctl
        config = os.path.join(ctl.dir, "warren.toml")
        with open(config, "w", encoding="utf-8") as file:
            file.write("[access]\nloopback_users = []\n")
        ctl.popen([WARREN, "--log", os.environ.get("WLOG","warn"), "serve", "--config", config, "--data-dir", os.path.join(ctl.dir, "broker"),
                   "--listen", f"{ctl.ip}:{AMQP_PORT}", "--peer-listen", f"{ctl.ip}:0", "--http-listen", f"{ctl.ip}:0"])
        self._until(ctl, b"Server startup complete")

    def start_source(self):
        """`warren send` is started at t0: reading and hashing the file belongs to the time that is measured."""

    def source_ready(self):
        return True

    def start_node(self, host):
        host.popen([WARREN, "--log", os.environ.get("WLOG","warn"), "node", "--broker", self.broker, "--name", host.name, "--group", GROUP,
                    "--data-dir", os.path.join(host.dir, "state"), "--inbox", os.path.join(host.dir, "data"),
                    "--peer-listen", f"{host.ip}:{host.port}"])

    def ready(self, host):
        return self._printed(host, b"ready; peers listening")

    def publish(self):
        source = self.lab.source
        options = dict(opt.split("=", 1) for opt in self.opts)
        source.popen([WARREN, "--log", os.environ.get("WLOG","warn"), "send", self.payload, "--broker", self.broker, "--group", GROUP,
                      "--payload-threshold", options.get("threshold", "1MiB"), "--seed-for", "1h",
                      "--peer-listen", f"{source.ip}:{source.port}"])

    def restart(self, host):
        self.start_node(host)

    def done(self, host):
        """The file comes by one rename once it is verified, and that is the last change of its folder."""
        if not os.path.exists(self.file_of(host)):
            return None
        return os.stat(os.path.dirname(self.file_of(host))).st_mtime_ns / 1e9

    @staticmethod
    def _printed(host, words):
        try:
            with open(os.path.join(host.dir, "log"), "rb") as file:
                return words in file.read()
        except FileNotFoundError:
            return False

    def _until(self, host, words, wait_s=30):
        end = time.monotonic() + wait_s
        while not self._printed(host, words):
            if time.monotonic() > end:
                raise SystemExit(f"{host.name} did not print {words.decode()!r}; its log is in {host.dir}")
            time.sleep(0.02)
