"""Dead letters: cycles, histories, CC and BCC, expirations and priorities that are not right."""

from amqpwire import Typed
from driver import scenario

AREA = "letters"


def take(ch, queue, count=1):
    ch.depth(queue, count)
    for _ in range(count):
        ch.get(queue)


@scenario(AREA)
def counts_of_two_queues_and_reasons(t):
    "Expired in one, rejected in the other, round and round: counts and order of x-death."
    ch = t.channel()
    a = ch.queue(t.n("a"), arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": t.n("b"),
                                      "x-message-ttl": 20})
    b = ch.queue(t.n("b"), arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": a})
    ch.publish("", a, "m", {"headers": {"mine": 1}})
    for number in (1, 2, 3):
        ch.depth(b, 1)
        ch.get(b, no_ack=False)
        ch.send("basic.reject", delivery_tag=number, requeue=False)
    ch.depth(b, 1)
    ch.get(b)


@scenario(AREA)
def cycle_through_three(t):
    "A ring of three without a rejection drops the message."
    ch = t.channel()
    for name, following in ("ab", "bc", "ca"):
        ch.queue(t.n(name), arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": t.n(following),
                                       "x-message-ttl": 10})
    end = ch.queue(t.n("end"))
    ch.publish("", t.n("a"), "m")
    t.sleep(0.4)
    for name in "abc":
        ch.depth(t.n(name), 0)
    ch.depth(end, 0)


@scenario(AREA)
def self_cycle_by_ttl(t):
    "A queue that is its own dead-letter target, by expiry: dropped."
    ch = t.channel()
    q = ch.queue(t.n("q"), arguments={"x-dead-letter-exchange": "", "x-message-ttl": 10})
    ch.publish("", q, "m")
    t.sleep(0.2)
    ch.depth(q, 0)


@scenario(AREA)
def self_cycle_by_rejection(t):
    "The same by rejection goes on."
    ch = t.channel()
    q = ch.queue(t.n("q"), arguments={"x-dead-letter-exchange": ""})
    ch.publish("", q, "m")
    for number in (1, 2):
        ch.depth(q, 1)
        ch.get(q, no_ack=False)
        ch.send("basic.reject", delivery_tag=number, requeue=False)
    take(ch, q)


@scenario(AREA)
def self_cycle_by_length(t):
    "The same by length: what is dropped does not come back."
    ch = t.channel()
    q = ch.queue(t.n("q"), arguments={"x-dead-letter-exchange": "", "x-max-length": 1})
    ch.publish("", q, "one")
    ch.publish("", q, "two")
    ch.depth(q, 1)
    ch.get(q)
    ch.get(q)


@scenario(AREA)
def expires_on_the_way(t):
    "expiration is taken off at the first death: the second queue keeps the message."
    ch = t.channel()
    b = ch.queue(t.n("b"))
    a = ch.queue(t.n("a"), arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": b})
    ch.publish("", a, "m", {"expiration": "10", "delivery_mode": 2, "priority": 3, "correlation_id": "c"})
    ch.depth(b, 1)
    t.sleep(0.1)
    ch.get(b)


@scenario(AREA)
def rejected_keeps_expiration(t):
    "Is expiration taken off too when the death is a rejection?"
    ch = t.channel()
    b = ch.queue(t.n("b"))
    a = ch.queue(t.n("a"), arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": b})
    ch.publish("", a, "m", {"expiration": "60000"})
    ch.get(a, no_ack=False)
    ch.send("basic.reject", delivery_tag=1, requeue=False)
    take(ch, b)


@scenario(AREA)
def several_keys_in_history(t):
    "CC in x-death's routing-keys, and what stays in the message."
    ch = t.channel()
    b = ch.queue(t.n("b"))
    a = ch.queue(t.n("a"), arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": b})
    ch.publish("", t.n("none"), "m", {"headers": {"CC": [a, t.n("other")], "BCC": [t.n("secret")]}})
    ch.get(a, no_ack=False)
    ch.send("basic.reject", delivery_tag=1, requeue=False)
    take(ch, b)


@scenario(AREA)
def history_goes_on_across_exchanges(t):
    "Two dead-letter exchanges of different types; x-first-death stays."
    ch = t.channel()
    ch.exchange(t.n("dlx1"), "topic")
    ch.exchange(t.n("dlx2"), "fanout")
    a = ch.queue(t.n("a"), arguments={"x-dead-letter-exchange": t.n("dlx1")})
    b = ch.queue(t.n("b"), arguments={"x-dead-letter-exchange": t.n("dlx2"), "x-message-ttl": 10})
    c = ch.queue(t.n("c"))
    ch.exchange(t.n("in"), "direct")
    ch.bind(a, t.n("in"), "the.key")
    ch.bind(b, t.n("dlx1"), "the.*")
    ch.bind(c, t.n("dlx2"))
    ch.publish(t.n("in"), "the.key", "m", {"message_id": "1"})
    ch.get(a, no_ack=False)
    ch.send("basic.reject", delivery_tag=1, requeue=False)
    take(ch, c)


@scenario(AREA)
def forged_entries(t):
    "x-death with entries that were never made by a broker."
    ch = t.channel()
    b = ch.queue(t.n("b"))
    a = ch.queue(t.n("a"), arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": b})
    forged = [[{"queue": a, "reason": "rejected", "count": Typed("l", 7), "exchange": "",
                "routing-keys": [a], "time": Typed("T", 1)}],
              [{"queue": "other", "reason": "expired"}], [], [{"count": Typed("l", 1)}]]
    for number, value in enumerate(forged):
        ch.publish("", a, "m%d" % number, {"headers": {"x-death": value}})
        ch.get(a, no_ack=False)
        ch.send("basic.reject", delivery_tag=2 * number + 1, requeue=False)
        take(ch, b)


@scenario(AREA)
def missing_target_queue(t):
    "A dead letter that no queue takes is gone, without a return."
    ch = t.channel()
    a = ch.queue(t.n("a"), arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": t.n("none")})
    ch.publish("", a, "m", mandatory=True)
    ch.get(a, no_ack=False)
    ch.send("basic.reject", delivery_tag=1, requeue=False)
    ch.quiet()


@scenario(AREA)
def dead_letter_uses_alternate(t):
    "A dead letter without a route goes to the alternate exchange."
    ch = t.channel()
    b = ch.queue(t.n("b"))
    ch.exchange(t.n("alt"), "fanout")
    ch.bind(b, t.n("alt"))
    ch.exchange(t.n("dlx"), "direct", arguments={"alternate-exchange": t.n("alt")})
    a = ch.queue(t.n("a"), arguments={"x-dead-letter-exchange": t.n("dlx")})
    ch.publish("", a, "m")
    ch.get(a, no_ack=False)
    ch.send("basic.nack", delivery_tag=1, requeue=False)
    take(ch, b)


@scenario(AREA)
def internal_dead_letter_exchange(t):
    "An internal exchange takes dead letters."
    ch = t.channel()
    b = ch.queue(t.n("b"))
    ch.exchange(t.n("dlx"), "fanout", internal=True)
    ch.bind(b, t.n("dlx"))
    a = ch.queue(t.n("a"), arguments={"x-dead-letter-exchange": t.n("dlx")})
    ch.publish("", a, "m")
    ch.get(a, no_ack=False)
    ch.send("basic.nack", delivery_tag=1, requeue=False)
    take(ch, b)


@scenario(AREA)
def full_target_of_dead_letters(t):
    "A target that refuses: the dead letter is gone."
    ch = t.channel()
    b = ch.queue(t.n("b"), arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    ch.publish("", b, "before")
    a = ch.queue(t.n("a"), arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": b})
    ch.publish("", a, "m")
    ch.get(a, no_ack=False)
    ch.send("basic.nack", delivery_tag=1, requeue=False)
    ch.sync()
    ch.depth(b, 1)
    ch.get(b)
    ch.get(b)


@scenario(AREA, limit=6)
def cc_of_every_type(t):
    "CC and BCC that are no arrays, or arrays of other things."
    for name in ("CC", "BCC"):
        for value in ("q", 5, None, True, {"a": 1}, b"q", [5], ["a", 5], [b"bytes"], [[]], [None], []):
            ch = t.channel()
            ch.publish("", t.n("q"), "m", {"headers": {name: value}})
            ch.sync()


@scenario(AREA)
def cc_and_bcc_together(t):
    "Both, with names in common."
    ch = t.channel()
    a, b, c = (ch.queue(t.n(name)) for name in "abc")
    ch.publish("", a, "m", {"headers": {"CC": [b, a], "BCC": [c, b], "cc": ["no"]}})
    for q in (a, b, c):
        ch.get(q)
        ch.get(q)


@scenario(AREA)
def cc_at_topic_exchange(t):
    "CC keys are matched like the key itself."
    ch = t.channel()
    a, b = ch.queue(t.n("a")), ch.queue(t.n("b"))
    ch.exchange(t.n("x"), "topic")
    ch.bind(a, t.n("x"), "one.*")
    ch.bind(b, t.n("x"), "*.two")
    ch.publish(t.n("x"), "none", "m", {"headers": {"CC": ["one.a", "b.two", "one.two"]}}, mandatory=True)
    ch.get(a)
    ch.get(a)
    ch.get(b)
    ch.get(b)


@scenario(AREA)
def cc_at_fanout_and_headers(t):
    "CC at exchanges that do not look at keys."
    ch = t.channel()
    a, b = ch.queue(t.n("a")), ch.queue(t.n("b"))
    ch.exchange(t.n("f"), "fanout")
    ch.exchange(t.n("h"), "headers")
    ch.bind(a, t.n("f"))
    ch.bind(b, t.n("h"), "", {"x": 1})
    ch.publish(t.n("f"), "k", "m", {"headers": {"CC": ["l", "m"]}})
    ch.publish(t.n("h"), "k", "m", {"headers": {"CC": ["l"], "BCC": ["z"], "x": 1}})
    ch.get(a)
    ch.get(a)
    ch.get(b)
    ch.get(b)


@scenario(AREA, limit=6)
def expirations(t):
    "Bad forms of expiration, and odd good ones."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    for text in ("1000", "+5", "-0", "007", "1.0", "1e3", " 5", "5 ", "0x10", "4294967295", "4294967296",
                 "99999999999999999999", "\u0665", "1_000", "infinity", "5\x00", "5\n", "5\"", "5\\", "5\x1b", "5\x7f"):
        ch.publish("", q, "m", {"expiration": text})
        event = ch.call("queue.purge", queue=q)
        if event["method"] == "channel.close":
            ch.after_close()


@scenario(AREA)
def priorities_of_messages(t):
    "Priorities above the maximum, in a queue with few levels."
    ch = t.channel()
    q = ch.queue(t.n("q"), arguments={"x-max-priority": 3})
    for number, priority in enumerate([0, None, 3, 255, 1, 4, 2]):
        ch.publish("", q, "m%d" % number, {"priority": priority} if priority is not None else None)
    ch.depth(q, 7)
    for _ in range(7):
        ch.get(q)


@scenario(AREA)
def priority_with_expiry(t):
    "An expired message of low priority behind live ones of high priority."
    ch = t.channel()
    dead = ch.queue(t.n("dead"))
    q = ch.queue(t.n("q"), arguments={"x-max-priority": 3, "x-dead-letter-exchange": "",
                                      "x-dead-letter-routing-key": dead})
    ch.publish("", q, "high", {"priority": 3})
    ch.publish("", q, "low", {"priority": 1, "expiration": "10"})
    ch.depth(dead, 1)
    ch.get(dead)
    ch.get(q)


@scenario(AREA)
def priority_with_limit_and_dead_letters(t):
    "What a full priority queue drops, as dead letters."
    ch = t.channel()
    dead = ch.queue(t.n("dead"))
    q = ch.queue(t.n("q"), arguments={"x-max-priority": 5, "x-max-length": 2, "x-dead-letter-exchange": "",
                                      "x-dead-letter-routing-key": dead})
    for priority in (1, 5, 3, 0):
        ch.publish("", q, "p%d" % priority, {"priority": priority})
    ch.depth(dead, 2)
    for queue in (dead, dead, q, q):
        ch.get(queue)


@scenario(AREA)
def user_id_and_expiration_both_wrong(t):
    "With several wrong properties: which is told?"
    for props in ({"user_id": "other", "expiration": "soon"}, {"user_id": "other", "delivery_mode": 7},
                  {"expiration": "soon", "headers": {"CC": "x"}}, {"delivery_mode": 7, "expiration": "soon"},
                  {"delivery_mode": 7, "headers": {"CC": "x"}}):
        ch = t.channel()
        ch.publish(t.n("missing"), "k", "m", props)
        ch.recv()
        ch.after_close()
        ch.publish("", "k", "m", props)
        ch.recv()
