"""Getting, acknowledging, qos, transactions and confirms, with what is wrong about them."""

from amqpwire import Typed
from driver import scenario

AREA = "settling"


@scenario(AREA)
def get_beside_exclusive_consumer(t):
    "basic.get on a queue that a consumer has to itself, and on one with a single active consumer."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.send("basic.qos", prefetch_count=1)
    ch.recv()
    ch.consume(q, "c", exclusive=True)
    ch.publish("", q, "one")
    ch.publish("", q, "two")
    ch.recv()
    other = t.channel()
    other.get(q, no_ack=False)
    sac = ch.queue(t.n("sac"), arguments={"x-single-active-consumer": True})
    ch.consume(sac, "s")
    ch.publish("", sac, "one")
    ch.recv()
    ch.publish("", sac, "two")
    ch.depth(sac, 1)
    other.get(sac, no_ack=False)


@scenario(AREA)
def get_counts_own_unacked(t):
    "message_count of get-ok while others are out."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    for body in "abc":
        ch.publish("", q, body)
    ch.depth(q, 3)
    ch.get(q, no_ack=False)
    ch.get(q, no_ack=True)
    ch.send("basic.nack", delivery_tag=1, requeue=True)
    ch.get(q, no_ack=False)
    ch.get(q, no_ack=False)
    ch.get(q)


@scenario(AREA)
def qos_variants(t):
    "basic.qos with every combination that is taken."
    ch = t.channel()
    for fields in ({}, {"prefetch_count": 65535}, {"prefetch_count": 1, "global_": True}, {"global_": True},
                   {"prefetch_count": 5}):
        ch.call("basic.qos", **fields)


@scenario(AREA)
def qos_size_global(t):
    "A prefetch_size with global is refused like one without."
    ch = t.channel()
    ch.call("basic.qos", prefetch_size=1, prefetch_count=10, global_=True)


@scenario(AREA)
def qos_size_largest(t):
    "The largest prefetch_size."
    ch = t.channel()
    ch.call("basic.qos", prefetch_size=2 ** 32 - 1)


@scenario(AREA)
def qos_global_and_own(t):
    "A consumer's own limit under a larger one of the channel, and the other way round."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    for number in range(5):
        ch.publish("", q, "m%d" % number)
    ch.call("basic.qos", prefetch_count=3)
    ch.call("basic.qos", prefetch_count=2, global_=True)
    ch.consume(q, "c")
    ch.recv_n(2)
    ch.quiet()
    ch.call("basic.qos", prefetch_count=0, global_=True)
    ch.recv()
    ch.quiet()
    ch.ack(3, multiple=True)
    ch.recv_n(2)


@scenario(AREA)
def qos_global_lowered(t):
    "A limit below what is out holds until enough is settled."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    for number in range(5):
        ch.publish("", q, "m%d" % number)
    ch.call("basic.qos", prefetch_count=3, global_=True)
    ch.consume(q, "c")
    ch.recv_n(3)
    ch.call("basic.qos", prefetch_count=1, global_=True)
    ch.ack(1)
    ch.ack(2)
    ch.quiet()
    ch.ack(3)
    ch.recv()
    ch.quiet()


@scenario(AREA)
def ack_beyond(t):
    "Tags far beyond, and multiple up to a tag that is not out."
    for tag, multiple in ((2 ** 64 - 1, False), (2 ** 63, True), (3, True), (0, False)):
        ch = t.channel()
        q = ch.queue(t.n("q"))
        ch.publish("", q, "a")
        ch.get(q, no_ack=False)
        ch.ack(tag, multiple)
        ch.recv()
        ch.after_close()
        ch.get(q)


@scenario(AREA)
def nack_zero(t):
    "nack 0: single, and multiple with something out and with nothing."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.send("basic.nack", delivery_tag=0, multiple=True, requeue=False)
    for body in "ab":
        ch.publish("", q, body)
        ch.get(q, no_ack=False)
    ch.send("basic.nack", delivery_tag=0, multiple=True, requeue=True)
    ch.depth(q, 2)
    ch.get(q, no_ack=False)
    ch.get(q, no_ack=False)
    ch.send("basic.nack", delivery_tag=0, multiple=False, requeue=True)
    ch.recv()


@scenario(AREA)
def reject_zero(t):
    "reject has no multiple: 0 is unknown."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.publish("", q, "a")
    ch.get(q, no_ack=False)
    ch.send("basic.reject", delivery_tag=0, requeue=True)
    ch.recv()


@scenario(AREA)
def ack_twice_in_reverse(t):
    "Settled out of order; then a multiple that covers settled ones."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    for body in "abcd":
        ch.publish("", q, body)
        ch.get(q, no_ack=False)
    ch.ack(3)
    ch.ack(1)
    ch.ack(4, multiple=True)
    ch.sync()
    ch.ack(2)
    ch.recv()


@scenario(AREA)
def ack_after_queue_deleted(t):
    "What is out of a deleted queue can still be settled."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    for body in "abc":
        ch.publish("", q, body)
        ch.get(q, no_ack=False)
    ch.call("queue.delete", queue=q)
    ch.ack(1)
    ch.send("basic.nack", delivery_tag=2, requeue=True)
    ch.send("basic.reject", delivery_tag=3, requeue=False)
    ch.sync()


@scenario(AREA)
def recover_keeps_order(t):
    "recover puts everything back in order, marked."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    for body in "abc":
        ch.publish("", q, body)
        ch.get(q, no_ack=False)
    ch.ack(2)
    ch.call("basic.recover", requeue=True)
    ch.get(q)
    ch.get(q)
    ch.get(q)


@scenario(AREA)
def recover_with_nothing(t):
    "recover when nothing is out."
    ch = t.channel()
    ch.call("basic.recover", requeue=True)
    ch.send("basic.recover-async", requeue=True)
    ch.sync()


@scenario(AREA)
def tx_errors(t):
    "What goes wrong inside a transaction; what was published before the error is gone."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.call("tx.select")
    ch.publish("", q, "lost")
    ch.ack(7)
    ch.recv()
    ch.after_close()
    ch.get(q)
    ch.call("tx.commit")


@scenario(AREA)
def tx_wrong_properties(t):
    "A wrong property inside a transaction is told at once."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.call("tx.select")
    ch.publish("", q, "m", {"user_id": "other"})
    ch.recv()
    ch.after_close()
    ch.call("tx.select")
    ch.publish("", q, "m", {"expiration": "soon"})
    ch.recv()
    ch.after_close()
    ch.get(q)


@scenario(AREA)
def tx_mandatory_order(t):
    "Returns of several messages, then commit-ok; a rollback returns nothing."
    ch = t.channel()
    ch.call("tx.select")
    for body in "abc":
        ch.publish("", t.n("none"), body, mandatory=True)
    ch.call("tx.rollback")
    for body in "de":
        ch.publish("", t.n("none"), body, mandatory=True)
    ch.send("tx.commit")
    ch.recv_n(3)


@scenario(AREA)
def tx_nack_requeue(t):
    "nack and reject inside a transaction act at the commit."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    for body in "abc":
        ch.publish("", q, body)
    ch.depth(q, 3)
    for _ in range(3):
        ch.get(q, no_ack=False)
    ch.call("tx.select")
    ch.send("basic.nack", delivery_tag=2, multiple=True, requeue=True)
    ch.send("basic.reject", delivery_tag=3, requeue=False)
    ch.depth(q, 0)
    ch.call("tx.commit")
    ch.depth(q, 2)
    ch.get(q)
    ch.get(q)


@scenario(AREA)
def tx_ack_twice(t):
    "A tag settled in a transaction is unknown from then on, before the commit too."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.publish("", q, "a")
    ch.get(q, no_ack=False)
    ch.call("tx.select")
    ch.ack(1)
    ch.ack(1)
    ch.recv()
    ch.after_close()
    ch.depth(q, 1)


@scenario(AREA)
def tx_rollback_then_ack(t):
    "A rolled-back ack can be given again."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.publish("", q, "a")
    ch.get(q, no_ack=False)
    ch.call("tx.select")
    ch.ack(1)
    ch.call("tx.rollback")
    ch.ack(1)
    ch.call("tx.commit")
    ch.call("channel.close", reply_code=200)
    ch.after_close()
    ch.get(q)


@scenario(AREA)
def tx_queue_deleted_before_commit(t):
    "The queue goes before the commit."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.call("tx.select")
    ch.publish("", q, "m", mandatory=True)
    ch.call("queue.delete", queue=q)
    ch.send("tx.commit")
    ch.recv()
    ch.quiet()


@scenario(AREA)
def tx_with_limit(t):
    "A transaction into a queue that refuses."
    ch = t.channel()
    q = ch.queue(t.n("q"), arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    ch.call("tx.select")
    for body in "abc":
        ch.publish("", q, body)
    ch.call("tx.commit")
    ch.after_close()
    ch.get(q)
    ch.get(q)


@scenario(AREA)
def tx_several_queues_and_cc(t):
    "A commit reaches every queue of every message."
    ch = t.channel()
    a, b = ch.queue(t.n("a")), ch.queue(t.n("b"))
    ch.call("tx.select")
    ch.publish("", a, "m", {"headers": {"CC": [b]}})
    ch.publish("", b, "n")
    ch.get(a)
    ch.call("tx.commit")
    for q in (a, b, b):
        ch.get(q)


@scenario(AREA)
def confirm_mandatory_and_alternate(t):
    "Returns, routes by an alternate and confirms, in one stream of messages."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.exchange(t.n("alt"), "direct")
    ch.bind(q, t.n("alt"), "yes")
    ch.exchange(t.n("x"), "direct", arguments={"alternate-exchange": t.n("alt")})
    ch.call("confirm.select")
    for key in ("yes", "no", "yes", "no"):
        ch.publish(t.n("x"), key, key, mandatory=True)
    ch.confirms(4)
    ch.get(q)
    ch.get(q)
    ch.get(q)


@scenario(AREA)
def confirm_after_error(t):
    "A new channel of the same number counts from 1."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.call("confirm.select")
    ch.publish("", q, "a")
    ch.confirms(1)
    ch.publish(t.n("missing"), "", "b")
    ch.recv()
    ch.after_close()
    ch.publish("", q, "unconfirmed")
    ch.call("confirm.select")
    ch.publish("", q, "c")
    ch.confirms(1)


@scenario(AREA)
def confirm_select_twice(t):
    "A second select keeps the count."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.call("confirm.select")
    ch.publish("", q, "a")
    ch.confirms(1)
    ch.call("confirm.select")
    ch.publish("", q, "b")
    ch.confirms(2, first=2)


@scenario(AREA)
def confirm_of_refused_property(t):
    "A message that is refused has no confirm, and closes the channel."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.call("confirm.select")
    ch.publish("", q, "m", {"expiration": "soon"})
    ch.recv()
    ch.after_close()
    ch.get(q)


@scenario(AREA)
def confirm_of_internal_exchange_and_consumer_tag(t):
    "Confirms on a channel that consumes as well: both streams of tags count by themselves."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.call("confirm.select")
    ch.call("basic.qos", prefetch_count=1)
    ch.publish("", q, "a", {"delivery_mode": 1})
    ch.confirms(1)
    ch.consume(q, "c")
    ch.recv()
    ch.ack(1)
    ch.sync()
