"""Alternate exchanges, auto-delete chains and bindings between exchanges."""

from driver import scenario

AREA = "alternate"


def with_alternate(t, ch, name, kind, alternate, **more):
    return ch.exchange(t.n(name), kind, arguments={"alternate-exchange": alternate}, **more)


@scenario(AREA)
def chain_of_two(t):
    "What the first alternate cannot route goes to its own alternate."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.exchange(t.n("last"), "fanout")
    ch.bind(q, t.n("last"))
    with_alternate(t, ch, "middle", "direct", t.n("last"))
    with_alternate(t, ch, "first", "direct", t.n("middle"))
    ch.publish(t.n("first"), "k", "m")
    ch.get(q)


@scenario(AREA)
def cycle_of_two(t):
    "Two exchanges that are each other's alternate: dropped, and returned if mandatory."
    ch = t.channel()
    with_alternate(t, ch, "a", "direct", t.n("b"))
    with_alternate(t, ch, "b", "direct", t.n("a"))
    ch.call("confirm.select")
    ch.publish(t.n("a"), "k", "lost")
    ch.publish(t.n("a"), "k", "back", mandatory=True)
    ch.confirms(2)


@scenario(AREA)
def own_alternate(t):
    "An exchange that is its own alternate."
    ch = t.channel()
    with_alternate(t, ch, "a", "direct", t.n("a"))
    ch.publish(t.n("a"), "k", "back", mandatory=True)
    ch.recv()


@scenario(AREA)
def mandatory_routed_by_alternate(t):
    "A message that the alternate routes is not returned."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.exchange(t.n("all"), "fanout")
    ch.bind(q, t.n("all"))
    with_alternate(t, ch, "a", "topic", t.n("all"))
    ch.call("confirm.select")
    ch.publish(t.n("a"), "k", "m", mandatory=True)
    ch.confirms(1)
    ch.get(q)


@scenario(AREA)
def alternate_without_route_is_returned(t):
    "A mandatory message that the alternate cannot route either, with a confirm."
    ch = t.channel()
    ch.exchange(t.n("all"), "fanout")
    with_alternate(t, ch, "a", "topic", t.n("all"))
    ch.call("confirm.select")
    ch.publish(t.n("a"), "k", "m", mandatory=True)
    ch.confirms(1)


@scenario(AREA)
def internal_alternate(t):
    "An internal exchange serves as alternate."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.exchange(t.n("inside"), "fanout", internal=True)
    ch.bind(q, t.n("inside"))
    with_alternate(t, ch, "a", "direct", t.n("inside"))
    ch.publish(t.n("a"), "k", "m", mandatory=True)
    ch.get(q)


@scenario(AREA)
def default_exchange_as_alternate(t):
    "The empty name as alternate: is it the default exchange?"
    ch = t.channel()
    q = ch.queue(t.n("q"))
    with_alternate(t, ch, "a", "fanout", "")
    ch.publish(t.n("a"), q, "m", mandatory=True)
    ch.recv()
    ch.get(q)


@scenario(AREA)
def alternate_declared_later(t):
    "An alternate that does not exist when it is named."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    with_alternate(t, ch, "a", "direct", t.n("later"))
    ch.publish(t.n("a"), "k", "early", mandatory=True)
    ch.recv()
    ch.exchange(t.n("later"), "fanout")
    ch.bind(q, t.n("later"))
    ch.publish(t.n("a"), "k", "late", mandatory=True)
    ch.get(q)


@scenario(AREA)
def alternate_deleted(t):
    "The alternate is deleted, and comes back as another type."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.exchange(t.n("all"), "fanout")
    with_alternate(t, ch, "a", "direct", t.n("all"))
    ch.call("exchange.delete", exchange=t.n("all"))
    ch.publish(t.n("a"), "k", "m", mandatory=True)
    ch.recv()
    ch.exchange(t.n("all"), "topic")
    ch.bind(q, t.n("all"), "#")
    ch.publish(t.n("a"), "k", "n", mandatory=True)
    ch.get(q)


@scenario(AREA)
def alternate_only_without_any_route(t):
    "One bound queue is enough: the alternate gets nothing."
    ch = t.channel()
    q, other = ch.queue(t.n("q")), ch.queue(t.n("other"))
    ch.exchange(t.n("all"), "fanout")
    ch.bind(other, t.n("all"))
    with_alternate(t, ch, "a", "direct", t.n("all"))
    ch.bind(q, t.n("a"), "k")
    ch.publish(t.n("a"), "k", "m")
    ch.get(q)
    ch.get(other)


@scenario(AREA)
def alternate_behind_a_bound_exchange(t):
    "An exchange reached by a binding uses its alternate too."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.exchange(t.n("all"), "fanout")
    ch.bind(q, t.n("all"))
    with_alternate(t, ch, "inner", "direct", t.n("all"))
    ch.exchange(t.n("outer"), "fanout")
    ch.call("exchange.bind", destination=t.n("inner"), source=t.n("outer"), routing_key="")
    ch.publish(t.n("outer"), "nowhere", "m", mandatory=True)
    ch.get(q)


@scenario(AREA)
def bound_to_exchange_without_queues(t):
    "An exchange that leads to an empty exchange has not routed; the outer alternate?"
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.exchange(t.n("all"), "fanout")
    ch.bind(q, t.n("all"))
    ch.exchange(t.n("inner"), "fanout")
    with_alternate(t, ch, "outer", "fanout", t.n("all"))
    ch.call("exchange.bind", destination=t.n("inner"), source=t.n("outer"), routing_key="")
    ch.publish(t.n("outer"), "", "m", mandatory=True)
    ch.recv()
    ch.get(q)


@scenario(AREA)
def headers_and_cc_with_alternate(t):
    "CC keys are tried at the alternate as well, each queue once."
    ch = t.channel()
    a, b = ch.queue(t.n("a")), ch.queue(t.n("b"))
    ch.exchange(t.n("alt"), "direct")
    ch.bind(a, t.n("alt"), "one")
    ch.bind(b, t.n("alt"), "two")
    with_alternate(t, ch, "x", "direct", t.n("alt"))
    ch.publish(t.n("x"), "one", "m", {"headers": {"CC": ["two", "two"]}})
    ch.get(a)
    ch.get(b)
    ch.get(b)


@scenario(AREA)
def auto_delete_chain(t):
    "Auto-delete exchanges in a row go one after another with the last binding."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    for name in "abc":
        ch.exchange(t.n(name), "fanout", auto_delete=True)
    ch.call("exchange.bind", destination=t.n("b"), source=t.n("a"), routing_key="")
    ch.call("exchange.bind", destination=t.n("c"), source=t.n("b"), routing_key="")
    ch.bind(q, t.n("c"))
    ch.call("queue.unbind", queue=q, exchange=t.n("c"), routing_key="")
    for name in "abc":
        ch.call("exchange.declare", exchange=t.n(name), type="fanout", passive=True)
        ch.after_close()


@scenario(AREA)
def auto_delete_exchange_loses_its_destination(t):
    "The destination exchange is deleted: the source had no other binding."
    ch = t.channel()
    ch.exchange(t.n("a"), "fanout", auto_delete=True)
    ch.exchange(t.n("b"), "fanout")
    ch.call("exchange.bind", destination=t.n("b"), source=t.n("a"), routing_key="")
    ch.call("exchange.delete", exchange=t.n("b"))
    ch.call("exchange.declare", exchange=t.n("a"), type="fanout", passive=True)


@scenario(AREA)
def auto_delete_of_a_destination(t):
    "An auto-delete exchange goes when it is no source any more, though it is a destination."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.exchange(t.n("a"), "fanout")
    ch.exchange(t.n("b"), "fanout", auto_delete=True)
    ch.call("exchange.bind", destination=t.n("b"), source=t.n("a"), routing_key="")
    ch.bind(q, t.n("b"))
    ch.call("queue.delete", queue=q)
    ch.call("exchange.declare", exchange=t.n("b"), type="fanout", passive=True)
    ch.after_close()
    ch.publish(t.n("a"), "", "m", mandatory=True)
    ch.recv()


@scenario(AREA)
def if_unused_counts_bindings_from_it(t):
    "if-unused: being a destination is no use."
    ch = t.channel()
    ch.exchange(t.n("a"), "fanout")
    ch.exchange(t.n("b"), "fanout")
    ch.call("exchange.bind", destination=t.n("b"), source=t.n("a"), routing_key="")
    ch.call("exchange.delete", exchange=t.n("a"), if_unused=True)
    ch.after_close()
    ch.call("exchange.delete", exchange=t.n("b"), if_unused=True)


@scenario(AREA)
def cycle_of_three_delivers_once(t):
    "Three exchanges bound in a ring, queues at two of them."
    ch = t.channel()
    q, r = ch.queue(t.n("q")), ch.queue(t.n("r"))
    for name in "abc":
        ch.exchange(t.n(name), "fanout")
    for source, destination in ("ab", "bc", "ca", "cb", "aa"):
        ch.call("exchange.bind", destination=t.n(destination), source=t.n(source), routing_key="k")
    ch.bind(q, t.n("c"))
    ch.bind(q, t.n("a"))
    ch.bind(r, t.n("b"))
    ch.publish(t.n("b"), "k", "m", mandatory=True)
    ch.get(q)
    ch.get(q)
    ch.get(r)
    ch.get(r)


@scenario(AREA)
def key_matched_at_each_exchange(t):
    "The published key is what every exchange on the way matches."
    ch = t.channel()
    q, r = ch.queue(t.n("q")), ch.queue(t.n("r"))
    ch.exchange(t.n("a"), "topic")
    ch.exchange(t.n("b"), "direct")
    ch.call("exchange.bind", destination=t.n("b"), source=t.n("a"), routing_key="x.*")
    ch.bind(q, t.n("b"), "x.y")
    ch.bind(r, t.n("b"), "x.*")
    ch.publish(t.n("a"), "x.y", "m")
    ch.get(q)
    ch.get(r)


@scenario(AREA)
def exchange_binding_arguments(t):
    "Arguments tell two bindings of exchanges apart, and a headers exchange looks at them."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.exchange(t.n("h"), "headers")
    ch.exchange(t.n("f"), "fanout")
    ch.bind(q, t.n("f"))
    bind = {"destination": t.n("f"), "source": t.n("h"), "routing_key": ""}
    ch.call("exchange.bind", arguments={"a": 1}, **bind)
    ch.call("exchange.bind", arguments={"b": 2}, **bind)
    ch.publish(t.n("h"), "", "by b", {"headers": {"b": 2}})
    ch.call("exchange.unbind", arguments={"b": 2}, **bind)
    ch.publish(t.n("h"), "", "none", {"headers": {"b": 2}})
    ch.publish(t.n("h"), "", "by a", {"headers": {"a": 1}})
    ch.get(q)
    ch.get(q)
    ch.get(q)


@scenario(AREA)
def publish_to_internal_with_confirm(t):
    "An internal exchange refuses although the channel confirms and the message is mandatory."
    ch = t.channel()
    ch.exchange(t.n("i"), "fanout", internal=True)
    ch.call("confirm.select")
    ch.publish(t.n("i"), "k", "m", mandatory=True)
    ch.recv()
    ch.after_close()
    ch.exchange(t.n("i"), "fanout", internal=True)
