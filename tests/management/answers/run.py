#!/usr/bin/env python3
"""What a management API and `rabbitmqadmin` answer, step by step, recorded from RabbitMQ 3.10.8 and compared with Warren's.

    run.py record --port AMQP --http-port HTTP      golden.json from a fresh RabbitMQ
    run.py compare --port AMQP --http-port HTTP     the same steps against a fresh Warren

`steps.py` has the steps: calls of Debian's `rabbitmqadmin`, unmodified, of which exit code and both outputs count, and
requests of the HTTP API, of which status, kind of content and body do. A JSON answer is compared field by field: what RabbitMQ
has must be there with the same value, or with a value of the same kind where values are a machine's own or a moment's
(VARYING below). Further fields are Warren's business. `deviations.txt` names what differs on purpose, with the reason.
Prints one line for each step that differs, and `N passed, N failed` at the end.
"""

import argparse
import base64
import fnmatch
import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import steps

HERE = Path(__file__).resolve().parent
GOLDEN, DEVIATIONS = HERE / "golden.json", HERE / "deviations.txt"

#: Fields whose values belong to a machine, a version or a moment: only their kind is compared.
VARYING = set("""
    node name_of_node cluster_name rabbit_version rabbitmq_version product_name product_version management_version
    erlang_version erlang_full_version message release_series_support_status
    mem_used mem_limit disk_free disk_free_limit fd_used fd_total sockets_used sockets_total proc_used proc_total run_queue
    uptime os_pid processors context_switches gc_num gc_bytes_reclaimed memory reductions
    rate avg avg_rate timestamp connected_at idle_since port peer_port host ip_address ip backlog
    recv_cnt recv_oct send_cnt send_oct send_pend garbage_collection backing_queue_status
    password_hash log_files db_dir config_files io_read_avg_time io_write_avg_time io_sync_avg_time io_seek_avg_time
    description desc doc_url provided_by rss allocated erlang client_properties copyright platform version
    ra_open_file_metrics metrics_gc_queue_length mem_calculation_strategy hashing_algorithm user_who_performed_action
    consumer_capacity consumer_utilisation messages_persistent message_bytes_persistent messages_ram message_bytes_ram
    messages_ready_ram messages_unacknowledged_ram auth_attempts auth_attempts_failed auth_attempts_succeeded samples
    statistics_db_event_queue open_files readers io_read_bytes io_read_count io_write_bytes io_write_count io_sync_count
    io_seek_count io_reopen_count mnesia_disk_tx_count mnesia_ram_tx_count queue_index_write_count queue_index_read_count
    queue_index_journal_write_count msg_store_read_count msg_store_write_count
""".split())
#: Endings of such names.
VARYING_ENDS = ("_procs", "_ets", "_time", "_created", "_closed", "_declared", "_deleted")
#: Objects in which every number is a moment's.
COUNTS = {"message_stats", "churn_rates", "garbage_collection", "backing_queue_status"}
#: Fields that are there at some moments only.
PASSING = {"idle_since"}
#: Lists whose entries are a machine's own: that they look alike is enough.
OWN_LISTS = {"exchange_types", "listeners", "contexts", "applications", "auth_mechanisms", "ports", "protocols"}


def find_admin():
    found = sorted(Path("/usr/lib/rabbitmq/lib").glob("*/plugins/rabbitmq_management-*/priv/www/cli/rabbitmqadmin"))
    if not found:
        sys.exit("rabbitmqadmin is missing: apt-get install rabbitmq-server")
    return found[0]


class Runner:
    """Runs steps against one broker; keeps what each answered."""

    def __init__(self, port, http_port, pause):
        self.port, self.http_port, self.pause = port, http_port, pause
        self.admin_path = find_admin()
        self.folder = tempfile.TemporaryDirectory()
        self.results, self.seen = [], {}
        overview = json.loads(self.request("GET", "/api/overview")[2])
        self.node, self.cluster = overview["node"], overview["cluster_name"]

    def request(self, method, path, body=None, user="guest:guest", headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=60)
        headers = dict(headers or {})
        if user:
            headers["Authorization"] = "Basic " + base64.b64encode(user.encode()).decode()
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
            body = body if isinstance(body, (str, bytes)) else json.dumps(body)
        connection.request(method, path.replace("{node}", getattr(self, "node", "")), body, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, answer.headers, text

    def keep(self, step, result):
        """Keeps a result under a name that no other step has."""
        count = self.seen[step] = self.seen.get(step, 0) + 1
        if count > 1:
            step = f"{step} #{count}"
        self.results.append({"step": step, **result})

    def plain(self, text):
        """A text without what is this run's own."""
        text = text.replace(self.cluster, "<cluster>").replace(self.node, "<node>").replace(self.folder.name, "<folder>")
        text = re.sub(r"(?<!\d)127\.0\.0\.1:\d+", "<address>", text)
        return text.replace(f"localhost:{self.http_port}", "localhost:<http>")

    def admin(self, line, stdin="", user=None, name=None):
        """Calls rabbitmqadmin with these words; one word is what stands in quotes or between spaces."""
        words = steps.split(line)
        called = [word.replace("{folder}", self.folder.name) for word in words]
        login = ["-u", user.split(":")[0], "-p", user.split(":")[1]] if user else []
        environment = {"PATH": os.environ["PATH"], "HOME": self.folder.name, "LC_ALL": "C.UTF-8", "COLUMNS": "80"}
        done = subprocess.run([sys.executable, "-B", "-W", "ignore", self.admin_path, "-P", str(self.http_port), *login, *called],
                              input=stdin, capture_output=True, text=True, env=environment)
        form = next((words[index + 1] for index, word in enumerate(words[:-1]) if word in ("-f", "--format")), "table")
        result = {"code": done.returncode, "out": self.answer(self.plain(done.stdout), form, "-S" in words)}
        if done.stderr:
            errors = self.plain(done.stderr)
            # Of an exception its last lines tell what came.
            result["err"] = re.sub(r"(?s)Traceback .*\n(?=\S+: )", "", errors)
        self.keep(name or ("[%s] " % user.split(":")[0] if user else "") + "rabbitmqadmin " + line, result)

    def answer(self, text, form, is_sorted):
        """What a listing says: JSON as such, a table as rows of named cells, anything else as text."""
        if form in ("raw_json", "pretty_json") and text:
            try:
                return {"json": shape(json.loads(text))}
            except ValueError:
                return text
        lines = text.splitlines()
        if form == "table" and lines and lines[0].startswith("+-"):
            cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
            rows = [dict(zip(cells[0], row)) for row in cells[1:]]
            rows = [{name: cell_shape(name, cell) for name, cell in row.items()} for row in rows]
            return {"table": rows if is_sorted else sorted(rows, key=identity)}
        return text

    def http(self, line, body=None, user="guest:guest", headers=None, name=None):
        """Sends `METHOD /path`; the body is JSON."""
        method, path = line.split(" ", 1)
        status, got, text = self.request(method, path, body, user, headers)
        result = {"status": status}
        for header in ("content-type", "location", "www-authenticate", "allow"):
            if header in got:
                value = re.sub(r'(?<=realm=")[^"]*', "<realm>", self.plain(got[header]))
                result[header] = re.sub(r"~[\w-]{6,8}$", "~<hash>", value)
        if method != "HEAD" and text:
            try:
                result["json"] = shape(json.loads(self.plain(text)))
            except ValueError:
                result["text"] = self.plain(text)
        said = "" if body is None else " " + (body if isinstance(body, str) else json.dumps(body, sort_keys=True))
        who = "" if user == "guest:guest" else f"[{user.split(':')[0] if user else 'nobody'}] "
        self.keep(name or who + line + said[:200], result)
        try:
            return json.loads(text)
        except ValueError:
            return text

    def settle(self):
        """Waits until statistics are what happened."""
        time.sleep(self.pause)


def is_varying(name):
    return name in VARYING or name.endswith(VARYING_ENDS)


def kind(value):
    if isinstance(value, bool):
        return "<boolean>"
    if isinstance(value, (int, float)):
        return "<number>"
    if value is None:
        return "<null>"
    return {str: "<string>", list: "<list>", dict: "<object>"}[type(value)]


def cell_shape(name, cell):
    if is_varying(name.rsplit(".", 1)[-1]) or name.endswith("rate"):
        return "<number>" if re.fullmatch(r"-?[\d.]+", cell) else "<string>"
    return cell


def identity(entry):
    """By what a list's entries are put in order: their names, then all of them."""
    if isinstance(entry, dict):
        names = ("vhost", "name", "source", "destination", "routing_key", "user", "component", "exchange", "protocol", "port")
        return json.dumps([entry.get(name, "") for name in names]), json.dumps(entry, sort_keys=True)
    return json.dumps(entry), ""


def kinds(value):
    """A value with kinds only, objects by their fields."""
    return {key: kinds(inner) for key, inner in sorted(value.items())} if isinstance(value, dict) else kind(value)


def shape(value, name=""):
    """A value without what varies; lists in one order."""
    if name == "properties_key":
        return re.sub(r"~[\w-]{6,8}$", "~<hash>", value)
    if isinstance(value, dict):
        if name in COUNTS or name == "memory":
            return kinds(value)
        if is_varying(name):
            return "<object>"
        if value.get("name") == "internal_cluster_id":
            return kinds(value)
        return {key: shape(inner, key) for key, inner in sorted(value.items())}
    if isinstance(value, list):
        if name in OWN_LISTS:
            return [kinds(entry) for entry in value[:1]]
        return "<list>" if is_varying(name) else sorted((shape(inner, name) for inner in value), key=identity)
    return kind(value) if is_varying(name) else value


def differences(wanted, found, path=""):
    """Where `found` lacks something of `wanted` or has it otherwise: pairs of a path and words."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key, inner in wanted.items():
            place = f"{path}.{key}" if path else key
            if key not in found and key in PASSING:
                continue
            if key not in found:
                yield place, f"is missing; RabbitMQ has {brief(inner)}"
            else:
                yield from differences(inner, found[key], place)
        if not path:
            for key in found.keys() - wanted.keys():
                yield key, f"is there, RabbitMQ has none: {brief(found[key])}"
    elif isinstance(wanted, list) and isinstance(found, list):
        place = f"{path}.#"
        if len(wanted) != len(found):
            yield place, f"{len(found)} entries, RabbitMQ has {len(wanted)}: {brief(found)}, RabbitMQ {brief(wanted)}"
            return
        for one, other in zip(wanted, found):
            yield from differences(one, other, place)
    elif wanted != found and not (is_varying(path.rsplit(".", 1)[-1]) and kind(wanted) == kind(found)):
        yield path, f"{brief(found)}, RabbitMQ has {brief(wanted)}"


def brief(value):
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 300 else text[:297] + "..."


def read_deviations():
    """Patterns of step and path, with whether they were of use."""
    found = []
    for line in DEVIATIONS.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            step, path, _reason = line.split("\t", 2)
            found.append([step, path, False])
    return found


def compare(results, show_all):
    golden = {entry.pop("step"): entry for entry in json.loads(GOLDEN.read_text())}
    deviations = read_deviations()
    passed = failed = 0
    for entry in results:
        step = entry.pop("step")
        wanted = golden.pop(step, None)
        problems = [("", "RabbitMQ was not asked this")] if wanted is None else list(differences(wanted, entry))
        left = []
        for path, words in dict.fromkeys(problems):
            for deviation in deviations:
                if fnmatch.fnmatchcase(step, deviation[0]) and fnmatch.fnmatchcase(path, deviation[1]):
                    deviation[2] = True
                    break
            else:
                left.append(f"    {path}: {words}")
        if left:
            failed += 1
            print(f"DIFFERS: {step}", *(left if show_all else left[:8]), sep="\n")
        else:
            passed += 1
    for step in golden:
        failed += 1
        print(f"DIFFERS: {step}\n    was not run")
    for step, path, was_used in deviations:
        if not was_used:
            failed += 1
            print(f"DIFFERS: deviations.txt: nothing differs at {step} {path} any more")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["record", "compare"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--http-port", type=int, required=True)
    parser.add_argument("--all", action="store_true", help="every difference of a step, not the first eight")
    parser.add_argument("--keep", help="write the answers to this file too")
    arguments = parser.parse_args()
    is_record = arguments.action == "record"
    # RabbitMQ's statistics come every five seconds and are kept a while before they show.
    runner = Runner(arguments.port, arguments.http_port, 12 if is_record else 0.3)
    steps.run(runner)
    # One line a step: what changes between two recordings can be read.
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in runner.results)
    if arguments.keep:
        Path(arguments.keep).write_text(f"[\n{lines}\n]\n")
    if is_record:
        GOLDEN.write_text(f"[\n{lines}\n]\n")
        print(f"{len(runner.results)} answers recorded")
        return 0
    return compare(runner.results, arguments.all)


if __name__ == "__main__":
    sys.exit(main())
