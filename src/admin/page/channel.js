// One channel and its consumers.
// @ts-check
import * as api from "./api.js";
import { h } from "./dom.js";
import * as format from "./format.js";
import { link } from "./router.js";
import { table } from "./table.js";
import { empty, facts, pairs, section, stat } from "./ui.js";

/** @param {import("./shell.js").View} view */
export default function channel(view) {
    const { name } = view.params;
    view.head(name, { kind: "Channel", back: ["Channels", "#/channels"] });
    view.poll(5_000, async () => {
        const one = await api.get(api.at`/channels/${name}`, {}, view.signal);
        const consumers = one.consumer_details ?? [];
        view.show(
            h("div", { class: "stats", dataset: { key: "stats" } },
                stat("Unacknowledged", format.count(one.messages_unacknowledged)), stat("Unconfirmed", format.count(one.messages_unconfirmed)),
                stat("Consumers", format.count(one.consumer_count)), stat("Prefetch", one.prefetch_count === 0 ? "unlimited" : format.count(one.prefetch_count))),
            section("Consumers", {}, consumers.length === 0 ? empty("No consumers", "This channel subscribes to no queue.") : table("Consumers", [
                { label: "Consumer tag", head: true, cell: (consumer) => consumer.consumer_tag },
                { label: "Queue", cell: (consumer) => h("a", { href: link("queues", consumer.queue.vhost, consumer.queue.name) }, consumer.queue.name) },
                { label: "Acknowledges", cell: (consumer) => (consumer.ack_required ? "by hand" : "automatically") },
                { label: "Prefetch", number: true, cell: (consumer) => (consumer.prefetch_count === 0 ? "unlimited" : format.count(consumer.prefetch_count)) },
                { label: "Arguments", cell: (consumer) => pairs(consumer.arguments) },
            ], consumers, (consumer) => consumer.consumer_tag)),
            section("Details", {}, h("div", { class: "panel" }, facts([
                ["Connection", h("a", { href: link("connections", one.connection_details.name) }, one.connection_details.name)], ["User", one.user], ["Virtual host", one.vhost], ["Number", format.count(one.number)],
                ["Confirms", one.confirm ? "on" : "off"], ["Transactions", one.transactional ? "on" : "off"], ["Prefetch of the whole channel", one.global_prefetch_count === 0 ? "unlimited" : format.count(one.global_prefetch_count)],
            ]))),
        );
    });
}
