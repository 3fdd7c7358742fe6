"""The steps: every command of rabbitmqadmin, then the HTTP API path by path, each on what the ones before have made."""

import shlex

import amqp

split = shlex.split

LISTABLE = ("connections channels consumers exchanges queues bindings users vhosts permissions nodes parameters policies "
            "operator_policies vhost_limits").split()


def run(runner):
    """Everything, in order; the broker is a fresh one with its user guest."""
    usage(runner)
    declaring(runner)
    connected = working(runner)
    listing(runner)
    looking(runner, connected)
    refused(runner)
    deleting(runner)
    api_objects(runner)
    api_messages(runner)
    api_rights(runner)
    api_system(runner)


def usage(runner):
    """What it says before it asks a broker anything, and when there is none."""
    admin = runner.admin
    admin("--version")
    admin("help subcommands")
    admin("help config")
    admin("help nonsense")
    admin("")
    admin("nonsense")
    admin("list nonsense")
    admin("show nonsense")
    admin("declare")
    admin("declare nonsense name=x")
    admin("declare queue")
    admin("declare queue name")
    admin("declare queue name=q bogus=1")
    admin("declare queue name=q arguments=notjson")
    admin("declare user name=x tags=")
    admin("close nonsense")
    admin("purge nonsense")
    admin("-f nonsense list queues")
    admin("-U http://127.0.0.1:1 list queues")
    admin("list users", user="guest:wrong")
    admin("-c {folder}/nowhere list users")


def declaring(runner):
    admin = runner.admin
    admin("declare vhost name=v")
    admin("declare vhost name=v tracing=true")
    admin("declare vhost name='a b/c'")
    admin("declare user name=u password=secret tags=management")
    admin("declare user name=m password=secret tags=monitoring,custom")
    admin("declare user name=p password=secret tags=policymaker")
    admin("declare user name=nobody password= tags=")
    admin("declare user name=h password_hash=kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR tags=administrator "
          "hashing_algorithm=rabbit_password_hashing_sha256")
    admin("list users name tags", user="h:test12")
    admin("declare user name=h2 password_hash=notbase64! tags=")
    admin("declare permission vhost=v user=guest configure=.* write=.* read=.*")
    admin("declare permission vhost=v user=u configure=^a write=.* read=")
    admin("declare permission vhost=/ user=p configure=.* write=.* read=.*")
    admin("declare permission vhost=v user=u configure=( write= read=")
    admin("declare permission vhost=nowhere user=u configure= write= read=")
    admin("declare permission vhost=v user=unknown configure= write= read=")
    admin("declare queue name=q")
    admin("declare queue name=q")
    admin("declare queue name=q durable=false")
    admin("declare queue name=q auto_delete=true")
    admin("""declare queue name=q arguments='{"x-max-length": 5}'""")
    admin("-V v declare queue name=classic queue_type=classic")
    admin("-V v declare queue name=quorum queue_type=quorum")
    admin("-V v declare queue name=stream queue_type=stream")
    admin("-V v declare queue name=nonsense queue_type=nonsense")
    admin("""-V v declare queue name=ttl durable=false auto_delete=true arguments='{"x-message-ttl": 60000, "x-max-priority": 5}'""")
    admin("""-V v declare queue name=bad arguments='{"x-message-ttl": -1}'""")
    admin("""-V v declare queue name=bad arguments='{"x-expires": "soon"}'""")
    admin("-V v declare queue name=bad durable=maybe")
    admin("-V v declare queue name=amq.mine")
    admin("-V nowhere declare queue name=q")
    for kind in ("direct", "fanout", "topic", "headers"):
        admin(f"-V v declare exchange name=x.{kind} type={kind}")
    admin("""-V v declare exchange name=alt type=topic auto_delete=false internal=true arguments='{"alternate-exchange": "x.fanout"}'""")
    admin("-V v declare exchange name=x.topic type=direct")
    admin("-V v declare exchange name=x.new type=nonsense")
    admin("-V v declare exchange name=amq.mine type=direct")
    admin("-V v declare exchange name=amq.topic type=topic")
    admin("-V v declare binding source=x.topic destination=classic routing_key=a.#")
    admin("-V v declare binding source=x.topic destination=classic routing_key=a.#")
    admin("-V v declare binding source=x.topic destination=alt destination_type=exchange routing_key=b")
    admin("""-V v declare binding source=x.headers destination=classic arguments='{"x-match": "all", "a": 1, "b": "two"}'""")
    admin("-V v declare binding source=x.fanout destination=classic")
    admin("-V v declare binding source=x.nowhere destination=classic")
    admin("-V v declare binding source=x.topic destination=nowhere")
    admin("-V v declare binding source= destination=classic")
    admin("""-V v declare policy name=p pattern=^c definition='{"max-length": 100, "message-ttl": 60000}' apply-to=queues priority=2""")
    admin("""-V v declare policy name=p2 pattern=^x definition='{"alternate-exchange": "x.fanout"}' apply-to=exchanges""")
    admin("""-V v declare policy name=bad pattern=^c definition='{"bogus": 1}'""")
    admin("""-V v declare policy name=bad pattern=^c definition='{"max-length": -1}'""")
    admin("""-V v declare policy name=bad pattern=( definition='{"max-length": 1}'""")
    admin("""-V v declare policy name=bad pattern=^c definition='{"max-length": 1}' apply-to=nonsense""")
    admin("""-V v declare policy name=bad pattern=^c definition='{"max-length": 1}' priority='"high"'""")
    admin("""-V v declare policy name=bad pattern=^c definition='[]'""")
    admin("""-V v declare policy name=bad pattern=^c definition='{}'""")
    admin("""-V v declare operator_policy name=o pattern=^c definition='{"max-length": 50}' apply-to=queues priority=1""")
    admin("""-V v declare operator_policy name=bad pattern=^c definition='{"dead-letter-exchange": "x"}'""")
    admin("""-V v declare parameter component=nonsense name=s value='{"a": 1}'""")
    admin("declare vhost_limit vhost=v name=max-queues value=9")
    admin("declare vhost_limit vhost=v name=max-connections value=100")
    admin("declare vhost_limit vhost=v name=nonsense value=1")
    admin("""declare vhost_limit vhost=v name=max-queues value='"many"'""")
    admin("declare vhost_limit vhost=nowhere name=max-queues value=1")
    for number in range(6):
        admin(f"-V v declare queue name=fill.{number}")
    for number in range(6):
        admin(f"-q -V v delete queue name=fill.{number}")


def working(runner):
    """Messages by rabbitmqadmin, and a client to look at; gives it."""
    admin = runner.admin
    admin("-V v publish exchange=x.topic routing_key=a.b payload=hello")
    admin("-V v publish exchange=x.topic routing_key=nobody payload=hello")
    admin("-q -V v publish exchange=x.topic routing_key=nobody payload=hello")
    admin("publish routing_key=q payload=default")
    admin("publish routing_key=q", stdin="from standard input\nä\n")
    admin("publish routing_key=q payload=aGVsbG8= payload_encoding=base64")
    admin("publish routing_key=q payload=notbase64 payload_encoding=base64")
    admin("publish routing_key=q payload=x payload_encoding=nonsense")
    admin("""publish routing_key=q payload=props properties='{"delivery_mode": 2, "content_type": "text/plain", "priority": 3, """
          """"headers": {"a": 1, "b": "two", "c": [1, 2.5, true], "d": {"e": "f"}}, "timestamp": 1700000000, """
          """"expiration": "600000", "message_id": "id", "correlation_id": "c", "reply_to": "r", "type": "t", "app_id": "a"}'""")
    admin("""publish routing_key=nobody payload=x properties='{"headers": {"a": null}}'""")
    admin("""publish routing_key=q payload=x properties='{"user_id": "somebody"}'""")
    admin("""publish routing_key=q payload=x properties='{"user_id": "guest"}'""")
    admin("""publish routing_key=q payload=x properties='{"expiration": "soon"}'""")
    admin("""publish routing_key=q payload=x properties='{"expiration": "-5"}'""")
    admin("""publish routing_key=q payload=x properties='{"delivery_mode": "persistent"}'""")
    admin("""publish routing_key=q payload=x properties='{"nonsense": 1}'""")
    admin("publish exchange=nowhere routing_key=q payload=x")
    admin("-V v publish exchange=alt routing_key=q payload=internal")
    admin("-V nowhere publish routing_key=q payload=x")
    admin("get queue=q")
    admin("-f pretty_json get queue=q count=10")
    admin("-f raw_json get queue=q count=2 ackmode=ack_requeue_false")
    admin("-f raw_json get queue=q count=1 ackmode=reject_requeue_true")
    admin("-f raw_json get queue=q count=1 ackmode=reject_requeue_false")
    admin("-f raw_json get queue=q count=1 encoding=base64")
    admin("get queue=q payload_file={folder}/payload")
    admin("get queue=q payload_file={folder}/payload count=2")
    admin("get queue=q ackmode=nonsense")
    admin("get queue=q encoding=nonsense")
    admin("get queue=q count=many")
    admin("get queue=q count=-1")
    admin("get queue=nowhere")
    admin("-V v get queue=quorum")
    admin("-V v get queue=stream")
    admin("-V v get queue=ttl")
    client = amqp.Connection(runner.port, "v")
    client.confirms()
    client.publish("x.topic", "a.b", b"one")
    client.publish("x.topic", "nobody", b"two")
    client.expect(60, 80)
    client.prefetch(10)
    client.publish("", "quorum", b"three")
    client.publish("", "quorum", b"four")
    client.consume("classic", "mine")
    client.deliveries(2)
    client.ack(1)
    client.consume("quorum", "two")
    client.deliveries(2)
    runner.settle()
    return client


def listing(runner):
    """Every kind of thing, in every format."""
    admin = runner.admin
    admin("show overview")
    admin("-f raw_json show overview")
    admin("show overview rabbitmq_version object_totals.queues")
    for kind in LISTABLE:
        admin(f"list {kind}")
        admin(f"-f raw_json list {kind}")
    for kind in ("exchanges", "queues", "bindings", "consumers"):
        admin(f"-V v -f raw_json list {kind}")
        admin(f"-V nowhere list {kind}")
    for form in ("tsv", "long", "table", "kvp", "bash", "pretty_json"):
        admin(f"-V v -f {form} -S name list exchanges name type durable internal arguments")
    admin("-V v -S name -R list exchanges name type")
    admin("-V v -S messages list queues name messages consumers policy")
    admin("-V v -d 2 -S name list queues name arguments")
    admin("-V v -S name list queues name policy operator_policy effective_policy_definition.max-length")
    admin("-q list queues nonsense")
    admin("list parameters component")
    admin("export {folder}/all.json")
    admin("-V v export {folder}/v.json")
    admin("-q export {folder}/quiet.json")
    admin("import {folder}/all.json")
    admin("-V 'a b/c' import {folder}/v.json")
    admin("-V nowhere import {folder}/v.json")
    admin("-V 'a b/c' -S name list queues name durable arguments")
    admin("-V 'a b/c' -f raw_json list bindings")


def looking(runner, client):
    """The API on what is connected, queued and bound."""
    http = runner.http
    connections = http("GET /api/connections")
    connection = connections[0]["name"].replace(" ", "%20").replace(">", "%3E")
    http(f"GET /api/connections/{connection}", name="GET /api/connections/NAME")
    http(f"GET /api/connections/{connection}/channels", name="GET /api/connections/NAME/channels")
    channel = http("GET /api/channels")[0]["name"].replace(" ", "%20").replace(">", "%3E")
    http(f"GET /api/channels/{channel}", name="GET /api/channels/NAME")
    for path in ("connections/nobody", "connections/nobody/channels", "channels/nobody", "connections/username/guest",
                 "connections/username/nobody", "vhosts/v/connections", "vhosts/v/channels", "vhosts/%2F/connections",
                 "consumers", "consumers/v", "consumers/%2F", "consumers/nowhere"):
        http(f"GET /api/{path}")
    for queue in ("classic", "quorum", "stream", "ttl"):
        http(f"GET /api/queues/v/{queue}")
        http(f"GET /api/queues/v/{queue}/bindings")
    http("GET /api/queues/v/classic?columns=name,message_stats.publish_details.rate,consumer_details.consumer_tag")
    for path in ("queues", "queues/v", "queues/%2F", "queues/nowhere", "queues/v/nowhere", "queues/v/nowhere/bindings",
                 "queues?columns=name,messages", "queues?sort=name&sort_reverse=true&columns=name",
                 "queues?page=1&page_size=2&sort=name", "queues?page=1", "queues?page=1&page_size=501", "queues?page=9&page_size=100",
                 "queues?page=0", "queues?page=x", "queues?page=1&page_size=x", "queues?page=-1",
                 "queues?page=1&name=c&use_regex=false&sort=name&columns=name",
                 "queues?page=1&name=%5Ec&use_regex=true&sort=name&columns=name",
                 "queues?page=1&name=(&use_regex=true", "queues?page=1&page_size=100&name=&use_regex=false&pagination=true&columns=name",
                 "queues/v?page=1&use_regex=true&pagination=false&name=%5Eclassic$&page_size=100&columns=name",
                 "queues/v?page=2&page_size=2&sort=name&columns=name",
                 "queues?name=c&columns=name", "queues?disable_stats=true&enable_queue_totals=true", "queues?sort=messages&columns=name,messages",
                 "queues?sort=nonsense&columns=name", "queues?columns=nonsense"):
        http(f"GET /api/{path}")
    for path in ("exchanges", "exchanges/v", "exchanges/nowhere", "exchanges/v/x.topic", "exchanges/v/amq.default", "exchanges/v/alt",
                 "exchanges/v/nowhere", "exchanges/v/x.topic/bindings/source", "exchanges/v/alt/bindings/destination",
                 "exchanges/v/nowhere/bindings/source", "exchanges/v/amq.default/bindings/source",
                 "exchanges?page=1&page_size=100&name=%5Eamq&use_regex=true&pagination=true&sort=name&columns=name,vhost"):
        http(f"GET /api/{path}")
    for path in ("bindings", "bindings/v", "bindings/nowhere", "bindings/v/e/x.topic/q/classic", "bindings/v/e/x.topic/e/alt",
                 "bindings/v/e/x.topic/q/classic/a.%23", "bindings/v/e/x.topic/q/classic/nokey", "bindings/v/e/x.fanout/q/classic/~",
                 "bindings/v/e/nowhere/q/classic", "bindings/v/e/x.topic/q/nowhere", "bindings/v/e/x.topic/z/classic",
                 "bindings/v/e/amq.default/q/classic"):
        http(f"GET /api/{path}")
    for path in ("vhosts", "vhosts/v", "vhosts/%2F", "vhosts/nowhere", "vhosts/v/permissions", "vhosts/v/topic-permissions",
                 "vhosts/nowhere/permissions", "users", "users/", "users/u", "users/nowhere", "users/u/permissions",
                 "users/u/topic-permissions", "users/nowhere/permissions", "users/without-permissions", "permissions", "permissions/v/u",
                 "permissions/v/nowhere", "topic-permissions", "topic-permissions/v/u", "whoami", "policies", "policies/v",
                 "policies/v/p", "policies/v/nowhere", "policies/nowhere", "operator-policies", "operator-policies/v", "operator-policies/v/o",
                 "operator-policies/v/nowhere", "parameters", "parameters/operator_policy", "parameters/operator_policy/v",
                 "parameters/vhost-limits", "parameters/nonsense", "parameters/nonsense/v", "parameters/nonsense/v/x",
                 "parameters/operator_policy/v/o", "global-parameters", "global-parameters/cluster_name", "global-parameters/nonsense",
                 "vhost-limits", "vhost-limits/v", "vhost-limits/nowhere", "user-limits", "user-limits/u", "user-limits/nowhere",
                 "cluster-name", "definitions", "definitions/v", "definitions/nowhere"):
        http(f"GET /api/{path}")
    client.close()
    runner.settle()
    http("GET /api/connections")
    other = amqp.Connection(runner.port, "v", name="to be closed")
    runner.settle()
    name = http("GET /api/connections?columns=name,client_properties.connection_name")[0]["name"]
    runner.admin(f"close connection name='{name}'", name="rabbitmqadmin close connection name=NAME")
    closed = other.expect(10, 50)
    runner.keep("what a client hears whose connection is closed", {"code": int.from_bytes(closed[:2]), "text": closed[3:3 + closed[2]].decode()})
    other.close()
    runner.admin("close connection name=nobody")


def refused(runner):
    """Every list and some changes by users with each tag."""
    for user in ("u:secret", "m:secret", "p:secret", "nobody:secret"):
        for kind in LISTABLE:
            runner.admin(f"list {kind} name", user=user)
        runner.admin("show overview cluster_name", user=user)
        runner.admin("declare vhost name=mine", user=user)
        runner.admin("-V v declare queue name=other", user=user)
        runner.admin("-V v declare queue name=allowed", user=user)
        runner.admin("-V v delete queue name=allowed", user=user)
        runner.admin("-V v get queue=classic", user=user)
        runner.admin("-V v publish exchange=x.topic routing_key=nobody payload=x", user=user)
        runner.admin("""declare policy name=mine pattern=x definition='{"max-length": 1}'""", user=user)
        runner.admin("export {folder}/mine.json", user=user)
        runner.admin("close connection name=nobody", user=user)


def deleting(runner):
    admin = runner.admin
    admin("-V v purge queue name=classic")
    admin("-V v purge queue name=stream")
    admin("-V v purge queue name=nowhere")
    admin("-V v delete binding source=x.topic destination_type=queue destination=classic properties_key=a.%23")
    admin("-V v delete binding source=x.topic destination_type=queue destination=classic properties_key=a.%23")
    admin("-V v delete binding source=x.topic destination_type=exchange destination=alt properties_key=b")
    admin("-V v delete binding source=x.fanout destination_type=queue destination=classic")
    admin("-V v delete policy name=p")
    admin("-V v delete policy name=p")
    admin("-V v delete operator_policy name=o")
    admin("-V v delete operator_policy name=o")
    admin("-V v delete parameter component=nonsense name=s")
    admin("delete vhost_limit vhost=v name=max-queues")
    admin("delete vhost_limit vhost=v name=max-queues")
    admin("delete vhost_limit vhost=v name=nonsense")
    for queue in ("classic", "quorum", "stream", "ttl", "nowhere"):
        admin(f"-V v delete queue name={queue}")
    for exchange in ("alt", "x.direct", "x.fanout", "x.topic", "x.headers", "nowhere", "amq.topic"):
        admin(f"-V v delete exchange name={exchange}")
    admin("delete queue name=q")
    admin("delete permission vhost=v user=u")
    admin("delete permission vhost=v user=u")
    admin("delete permission vhost=nowhere user=u")
    for user in ("u", "m", "p", "nobody", "h", "unknown"):
        admin(f"delete user name={user}")
    for vhost in ("v", "'a b/c'", "nowhere"):
        admin(f"delete vhost name={vhost}")
    admin("list queues")
    admin("list vhosts name")
    admin("list users name")


def api_objects(runner):
    """Making, changing and deleting by the API itself: status, place and errors."""
    http = runner.http
    http("PUT /api/vhosts/w")
    http("PUT /api/vhosts/w", {"description": "words", "tags": "one,two", "tracing": False})
    http("GET /api/vhosts/w")
    http("PUT /api/vhosts/w", "no json")
    http("PUT /api/vhosts/w", [1])
    http("PUT /api/vhosts/w2", {"tags": 5})
    http("PUT /api/vhosts/w3", {"default_queue_type": "quorum"})
    http("DELETE /api/vhosts/w2")
    http("DELETE /api/vhosts/w3")
    http("POST /api/vhosts/w/start/{node}")
    http("POST /api/vhosts/w/start/nowhere@nowhere")
    http("PUT /api/queues/w/a", {})
    http("PUT /api/queues/w/a", {"durable": True})
    http("PUT /api/queues/w/d", {"durable": True, "auto_delete": False, "arguments": {}})
    http("PUT /api/queues/w/d", {"durable": True, "auto_delete": False, "arguments": {}})
    http("PUT /api/queues/w/d", "no json")
    http("PUT /api/queues/w/d", [])
    http("PUT /api/queues/w/d", {"durable": "yes"})
    http("PUT /api/queues/w/d", {"durable": 1})
    http("PUT /api/queues/w/d", {"arguments": "none"})
    http("PUT /api/queues/w/e", {"durable": True, "arguments": [], "nonsense": 1})
    http("PUT /api/queues/w/f", {"durable": "true", "auto_delete": "false", "node": "nowhere@nowhere"})
    http("PUT /api/queues/nowhere/a", {})
    http("PUT /api/queues/w/" + "n" * 255, {})
    http("PUT /api/queues/w/" + "n" * 256, {})
    http("DELETE /api/queues/w/" + "n" * 255)
    http("POST /api/queues/w/a", {})
    http("PATCH /api/queues/w/a", {})
    http("HEAD /api/queues/w/a")
    http("HEAD /api/queues/w/nowhere")
    http("OPTIONS /api/queues/w/a")
    http("PUT /api/queues/w/c", {"arguments": {"x-max-length": 10.0, "x-dead-letter-exchange": "amq.topic"}})
    runner.request("DELETE", "/api/queues/w/c")
    http("POST /api/queues/w/a/actions", {"action": "sync"})
    http("POST /api/queues/w/a/actions", {"action": "nonsense"})
    http("POST /api/queues/w/a/actions", {})
    http("POST /api/queues/w/nowhere/actions", {"action": "sync"})
    http("PUT /api/exchanges/w/x", {"type": "topic"})
    http("PUT /api/exchanges/w/x", {"type": "topic"})
    http("PUT /api/exchanges/w/x", {"type": "fanout"})
    http("PUT /api/exchanges/w/y", {})
    http("PUT /api/exchanges/w/y", {"type": 5})
    http("PUT /api/exchanges/w/amq.default", {"type": "direct"})
    http("DELETE /api/exchanges/w/amq.default")
    http("DELETE /api/exchanges/w/amq.topic")
    http("POST /api/bindings/w/e/x/q/a", {"routing_key": "k", "arguments": {}})
    http("POST /api/bindings/w/e/x/q/a", {"routing_key": "k", "arguments": {}})
    http("POST /api/bindings/w/e/x/q/a", {})
    http("POST /api/bindings/w/e/x/q/a")
    http("POST /api/bindings/w/e/x/q/a", {"routing_key": 5})
    http("POST /api/bindings/w/e/x/q/a", {"routing_key": "with space/~", "arguments": {"a": 1}},)
    http("POST /api/bindings/w/e/x/e/amq.fanout", {"routing_key": "to exchange"})
    http("POST /api/bindings/w/e/x/q/nowhere", {"routing_key": "k"})
    http("POST /api/bindings/w/e/nowhere/q/a", {"routing_key": "k"})
    http("POST /api/bindings/w/e/amq.default/q/a", {"routing_key": "k"})
    http("POST /api/bindings/w/e/x/z/a", {"routing_key": "k"})
    listed = http("GET /api/bindings/w/e/x/q/a")
    for entry in sorted(listed, key=lambda entry: entry["routing_key"]):
        key = entry["properties_key"].replace("%", "%25")
        http(f"GET /api/bindings/w/e/x/q/a/{key}", name=f"GET /api/bindings/w/e/x/q/a/PROPS of {entry['routing_key']}")
        http(f"DELETE /api/bindings/w/e/x/q/a/{key}", name=f"DELETE /api/bindings/w/e/x/q/a/PROPS of {entry['routing_key']}")
    http("DELETE /api/bindings/w/e/x/q/a/nokey")
    http("DELETE /api/exchanges/w/x?if-unused=true")
    http("DELETE /api/exchanges/w/x")
    http("DELETE /api/exchanges/w/x")
    http("PUT /api/users/one", {"password": "p", "tags": "management"})
    http("PUT /api/users/one", {"password": "p", "tags": ["management", "own"]})
    http("GET /api/users/one")
    http("PUT /api/users/two", {"password": "p"})
    http("PUT /api/users/two", {"tags": ""})
    http("PUT /api/users/three", {"password_hash": "QUJD", "hashing_algorithm": "nonsense", "tags": ""})
    runner.request("DELETE", "/api/users/three")
    http("PUT /api/users/two", {"tags": 5})
    http("PUT /api/users/two", {"password": 5, "tags": ""})
    http("PUT /api/users/two", "no json")
    http("PUT /api/users/", {"password": "p", "tags": ""})
    http("GET /api/users/without-permissions")
    http("POST /api/users/bulk-delete", {"users": ["two", "unknown"]})
    http("POST /api/users/bulk-delete", {})
    http("POST /api/users/bulk-delete", {"users": "two"})
    http("DELETE /api/users/two")
    http("PUT /api/permissions/w/one", {"configure": ".*", "write": ".*", "read": ".*"})
    http("PUT /api/permissions/w/one", {"configure": ".*", "write": "^x", "read": ".*"})
    http("PUT /api/permissions/w/one", {"configure": ".*"})
    http("PUT /api/permissions/w/one", {"configure": "(", "write": "", "read": ""})
    http("PUT /api/permissions/w/one", {"configure": 5, "write": "", "read": ""})
    http("PUT /api/permissions/w/unknown", {"configure": "", "write": "", "read": ""})
    http("PUT /api/permissions/nowhere/one", {"configure": "", "write": "", "read": ""})
    http("PUT /api/topic-permissions/w/one", {"exchange": "amq.topic", "write": "^a", "read": ".*"})
    http("PUT /api/topic-permissions/w/one", {"exchange": "amq.topic", "write": "^b", "read": ".*"})
    http("PUT /api/topic-permissions/w/one", {"exchange": "other", "write": "^b", "read": ".*"})
    http("PUT /api/topic-permissions/w/one", {"exchange": "amq.topic", "write": "(", "read": ".*"})
    http("PUT /api/topic-permissions/w/one", {"exchange": "amq.topic"})
    http("PUT /api/topic-permissions/w/unknown", {"exchange": "amq.topic", "write": "^a", "read": ".*"})
    http("GET /api/topic-permissions")
    http("GET /api/topic-permissions/w/one")
    http("GET /api/users/one/topic-permissions")
    http("GET /api/vhosts/w/topic-permissions")
    http("DELETE /api/topic-permissions/w/one/other")
    http("DELETE /api/topic-permissions/w/one")
    http("DELETE /api/topic-permissions/w/one")
    http("DELETE /api/permissions/w/one")
    http("DELETE /api/permissions/w/one")
    http("PUT /api/user-limits/one/max-connections", {"value": 5})
    http("PUT /api/user-limits/one/max-channels", {"value": 50})
    http("PUT /api/user-limits/one/nonsense", {"value": 5})
    http("PUT /api/user-limits/one/max-channels", {"value": "many"})
    http("PUT /api/user-limits/one/max-channels", {})
    http("PUT /api/user-limits/unknown/max-channels", {"value": 5})
    http("GET /api/user-limits")
    http("GET /api/user-limits/one")
    http("GET /api/users/one")
    http("DELETE /api/user-limits/one/max-channels")
    http("DELETE /api/user-limits/one/max-channels")
    http("DELETE /api/user-limits/one/nonsense")
    http("PUT /api/vhost-limits/w/max-queues", {"value": 50})
    http("PUT /api/vhost-limits/w/max-queues", {"value": "many"})
    http("PUT /api/vhost-limits/w/max-queues", {})
    http("GET /api/vhost-limits")
    http("DELETE /api/vhost-limits/w/max-queues")
    http("PUT /api/policies/w/p", {"pattern": "^a", "definition": {"max-length": 5}, "priority": 3, "apply-to": "queues"})
    http("PUT /api/policies/w/p", {"pattern": "^a", "definition": {"max-length": 6}})
    http("GET /api/policies/w/p")
    http("PUT /api/policies/w/p", {"pattern": "^a"})
    http("PUT /api/policies/w/p", {"definition": {"max-length": 5}})
    http("PUT /api/policies/w/p", {"pattern": 5, "definition": {"max-length": 5}})
    http("PUT /api/policies/w/p", {"pattern": "^a", "definition": {"max-length": 5}, "priority": "3"})
    http("PUT /api/policies/nowhere/p", {"pattern": "^a", "definition": {"max-length": 5}})
    http("DELETE /api/policies/w/p")
    http("PUT /api/operator-policies/w/o", {"pattern": "^a", "definition": {"max-length": 5}})
    http("PUT /api/operator-policies/w/o", {"pattern": "^a", "definition": {"max-length": 5}})
    http("DELETE /api/operator-policies/w/o")
    http("PUT /api/parameters/nonsense/w/p", {"value": {"a": 1}})
    http("PUT /api/parameters/nonsense/w/p", {})
    http("DELETE /api/parameters/nonsense/w/p")
    http("PUT /api/global-parameters/mine", {"value": {"a": [1, "b"]}})
    http("PUT /api/global-parameters/mine", {"name": "mine", "value": "text"})
    http("PUT /api/global-parameters/mine", {})
    http("GET /api/global-parameters/mine")
    http("DELETE /api/global-parameters/mine")
    http("DELETE /api/global-parameters/mine")
    http("PUT /api/cluster-name", {"name": "a name"})
    http("GET /api/cluster-name")
    http("PUT /api/cluster-name", {})
    http("PUT /api/cluster-name", {"name": 5})


def api_messages(runner):
    """Publishing and getting, with everything that can be wrong about it."""
    http = runner.http
    good = {"properties": {}, "routing_key": "a", "payload": "text", "payload_encoding": "string"}
    path = "POST /api/exchanges/w/amq.default/publish"
    http(path, good)
    for left_out in good:
        http(path, {key: value for key, value in good.items() if key != left_out})
    http(path, dict(good, routing_key="nobody"))
    http("PUT /api/queues/w/full", {"arguments": {"x-max-length": 1, "x-overflow": "reject-publish"}})
    http(path, dict(good, routing_key="full"))
    http(path, dict(good, routing_key="full"))
    http("DELETE /api/queues/w/full")
    http(path, dict(good, routing_key=5))
    http(path, dict(good, payload=5))
    http(path, dict(good, payload_encoding="nonsense"))
    http(path, dict(good, payload_encoding="base64"))
    http(path, dict(good, payload_encoding="base64", payload="!"))
    http(path, dict(good, properties=[]))
    http(path, dict(good, properties="none"))
    http(path, dict(good, payload="ü"))
    for name, value in [("delivery_mode", 1), ("delivery_mode", 2), ("delivery_mode", 3), ("delivery_mode", 0), ("delivery_mode", "2"),
                        ("delivery_mode", 300), ("priority", -1), ("priority", 255), ("priority", 256), ("priority", "high"),
                        ("expiration", "60000"), ("expiration", 60000), ("expiration", "-1"), ("expiration", "soon"), ("expiration", ""),
                        ("expiration", "4294967296"), ("expiration", "1.5"), ("headers", {"CC": ["d"]}), ("headers", {"CC": "d"}),
                        ("headers", {"BCC": ["d"]}), ("headers", 5), ("headers", []), ("timestamp", 5), ("timestamp", "now"), ("timestamp", -1),
                        ("content_type", 5), ("content_type", "x" * 256), ("user_id", "guest"), ("user_id", "other"), ("cluster_id", "c"),
                        ("message_id", ""), ("nonsense", "x")]:
        http(path, dict(good, properties={name: value}))
    http("POST /api/exchanges/w/nowhere/publish", good)
    http("POST /api/exchanges/nowhere/amq.default/publish", good)
    http("GET /api/exchanges/w/amq.default/publish")
    runner.settle()
    http("DELETE /api/queues/w/a/contents")
    http(path, dict(good, properties={"headers": {"a": 1}, "delivery_mode": 2}))
    get = {"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"}
    path = "POST /api/queues/w/a/get"
    http(path, get)
    for left_out in get:
        http(path, {key: value for key, value in get.items() if key != left_out})
    http(path, dict(get, count="1"))
    http(path, dict(get, count="x"))
    http(path, dict(get, count=0))
    http(path, dict(get, count=-1))
    http(path, dict(get, count=1.5))
    http(path, dict(get, truncate=2))
    http(path, dict(get, truncate="2"))
    http(path, dict(get, encoding="base64"))
    http(path, dict(get, encoding="nonsense"))
    http(path, dict(get, ackmode="nonsense"))
    http(path, dict(get, ackmode="ack_requeue_false"))
    http(path, get)
    http("POST /api/queues/w/nowhere/get", get)
    http("POST /api/queues/nowhere/a/get", get)
    http("GET /api/queues/w/a/get")
    http("DELETE /api/queues/w/nowhere/contents")
    http("GET /api/queues/w/a/contents")
    http("POST /api/exchanges/w/amq.default/publish", good)
    http("DELETE /api/queues/w/a?if-empty=true")
    http("DELETE /api/queues/w/a?if-unused=true")
    http("DELETE /api/queues/w/a")


#: Who may look at what: one path for each kind of right.
RIGHTS = ["overview", "nodes", "nodes/{node}", "nodes/{node}/memory", "connections", "channels", "consumers", "exchanges", "queues",
          "queues/w", "queues/w/d", "bindings", "bindings/w", "vhosts", "vhosts/w", "users", "users/one", "users/without-permissions",
          "permissions", "permissions/w/guest", "topic-permissions", "policies", "policies/w", "operator-policies", "operator-policies/w",
          "parameters", "parameters/operator_policy/w", "global-parameters", "global-parameters/x", "definitions", "definitions/w", "whoami",
          "cluster-name", "extensions", "vhost-limits", "vhost-limits/w", "user-limits", "user-limits/one", "feature-flags", "auth",
          "auth/attempts/{node}", "auth/hash_password/x", "health/checks/alarms", "health/checks/virtual-hosts", "aliveness-test/w",
          "healthchecks/node", "vhosts/w/permissions", "vhosts/w/topic-permissions", "vhosts/w/connections", "users/one/permissions",
          "connections/username/one", "nonsense", "queues/w/d/bindings", "rebalance/queues"]
#: Changes, none of which succeeds for who may.
CHANGES = [("PUT", "vhosts/w", "no json"), ("DELETE", "vhosts/nowhere", None), ("PUT", "users/x", "no json"), ("DELETE", "users/unknown", None),
           ("PUT", "permissions/w/x", {}), ("PUT", "policies/w/x", {}), ("PUT", "operator-policies/w/x", {}), ("PUT", "parameters/c/w/x", {}),
           ("PUT", "global-parameters/x", {}), ("PUT", "queues/w/x", "no json"), ("DELETE", "queues/w/nowhere", None),
           ("PUT", "exchanges/w/x", "no json"), ("POST", "definitions", "no json"), ("POST", "definitions/w", "no json"),
           ("PUT", "cluster-name", {}), ("PUT", "vhost-limits/w/max-queues", {}), ("PUT", "user-limits/one/max-channels", {}),
           ("POST", "users/bulk-delete", {}), ("POST", "queues/w/d/actions", {}), ("POST", "queues/w/d/get", {}),
           ("POST", "exchanges/w/amq.topic/publish", {}), ("DELETE", "connections/nobody", None), ("POST", "vhosts/w/start/nowhere", None),
           ("PUT", "feature-flags/nonsense/enable", {}), ("DELETE", "auth/attempts/{node}", None)]


def api_rights(runner):
    http = runner.http
    users = [("none", ""), ("man", "management"), ("pol", "policymaker"), ("mon", "monitoring"), ("adm", "administrator")]
    for name, tag in users:
        http(f"PUT /api/users/{name}", {"password": "p", "tags": tag})
        if name in ("none", "man"):
            http(f"PUT /api/permissions/w/{name}", {"configure": ".*", "write": ".*", "read": ".*"})
    http("PUT /api/users/outside", {"password": "p", "tags": "management"})
    for name in ["none", "man", "pol", "mon", "adm", "outside", None, "unknown"]:
        login = name and f"{name}:p"
        for path in RIGHTS:
            got = runner.request("GET", f"/api/{path}", user=login)
            kept = {"status": got[0]}
            if got[0] >= 400:
                kept["text"] = runner.plain(got[2])
            elif got[2][:1] == "[" and "exchanges" not in path:
                kept["length"] = len(runner_list(got[2]))
            runner.keep(f"[{name}] GET /api/{path} (right)", kept)
        for method, path, body in CHANGES:
            got = runner.request(method, f"/api/{path}", body, user=login)
            runner.keep(f"[{name}] {method} /api/{path} (right)", {"status": got[0], "text": runner.plain(got[2])})


def runner_list(text):
    import json
    return json.loads(text)


def api_system(runner):
    http = runner.http
    http("GET /api")
    http("GET /api/")
    http("GET /api/nonsense")
    http("GET /api/queues//")
    for path in ("overview", "overview?lengths_age=60&lengths_incr=5&msg_rates_age=60&msg_rates_incr=5&columns=node,queue_totals.messages",
                 "nodes", "nodes/{node}", "nodes/nowhere@nowhere", "nodes/{node}?memory=true&binary=true&columns=name", "nodes/{node}/memory",
                 "nodes/{node}/memory/relative", "nodes/{node}/memory/ets", "extensions", "auth", "feature-flags", "auth/attempts/{node}",
                 "auth/attempts/{node}/source", "auth/hash_password/secret", "health/checks/alarms", "health/checks/local-alarms",
                 "health/checks/certificate-expiration/1/weeks", "health/checks/certificate-expiration/1/nonsense",
                 "health/checks/certificate-expiration/x/weeks",
                 f"health/checks/port-listener/{runner.port}", "health/checks/port-listener/1", "health/checks/port-listener/x",
                 "health/checks/protocol-listener/amqp", "health/checks/protocol-listener/amqp091", "health/checks/protocol-listener/mqtt",
                 "health/checks/protocol-listener/http", "health/checks/protocol-listener/nonsense", "health/checks/virtual-hosts",
                 "health/checks/node-is-mirror-sync-critical", "health/checks/node-is-quorum-critical", "healthchecks/node",
                 "healthchecks/node/{node}", "aliveness-test/%2F", "aliveness-test/nowhere", "federation-links", "shovels", "whoami",
                 "stream/connections", "login"):
        http(f"GET /api/{path}", name=f"GET /api/{path}".replace(str(runner.port), "PORT"))
    http("POST /api/rebalance/queues", {})
    http("PUT /api/feature-flags/quorum_queue/enable", {})
    http("PUT /api/feature-flags/nonsense/enable", {})
    http("DELETE /api/auth/attempts/{node}")
    http("DELETE /api/auth/attempts/{node}/source")
    http("POST /api/login", "username=guest&password=guest", user=None, headers={"Content-Type": "application/x-www-form-urlencoded"})
    http("POST /api/login", "username=guest&password=wrong", user=None, headers={"Content-Type": "application/x-www-form-urlencoded"})
    http("POST /api/definitions", {"vhosts": [{"name": "imported"}], "queues": [{"name": "i", "vhost": "imported", "durable": True,
                                                                                   "auto_delete": False, "arguments": {}}]})
    http("POST /api/definitions", "no json")
    http("POST /api/definitions", [])
    http("POST /api/definitions", {"queues": [{"name": "i", "vhost": "nowhere", "durable": True, "auto_delete": False, "arguments": {}}]})
    http("POST /api/definitions", {"exchanges": [{"name": "i", "vhost": "imported", "type": "nonsense", "durable": True, "auto_delete": False,
                                                   "internal": False, "arguments": {}}]})
    http("POST /api/definitions/imported", {"queues": [{"name": "j", "durable": True, "auto_delete": False, "arguments": {}}]})
    http("POST /api/definitions/nowhere", {"queues": []})
    http("GET /api/queues/imported?columns=name")
    http("DELETE /api/vhosts/imported")
    http("DELETE /api/vhosts/w")
