// One channel and its consumers.
// @ts-check
import * as api from "./api.js";
import { chart } from "./chart.js";
import { h } from "./dom.js";
import * as format from "./format.js";
import { note, samples } from "./history.js";
import { link } from "./router.js";
import { table } from "./table.js";
import { empty, facts, pairs, section, stat } from "./ui.js";

const RATES = /** @type {[string, string][]} */ ([["publish", "Published"], ["deliver_get", "Delivered"], ["ack", "Acknowledged"], ["redeliver", "Redelivered"]]);

/** @param {import("./shell.js").View} view */
export default function channel(view) {
    const { name } = view.params;
    view.head(name, { kind: "Channel", back: ["Channels", "#/channels"] });
    const rates = chart({ title: "Message rates", series: RATES.map(([, label]) => label), format: format.rate, least: 4 });
    const series = `channel ${name}`;
    rates.show(samples(series));
    view.poll(5_000, async () => {
        const one = await api.get(api.at`/channels/${name}`, {}, view.signal);
        const consumers = one.consumer_details ?? [];
        const stats = one.message_stats;
        rates.show(note(series, RATES.map(([key]) => stats[`${key}_details`].rate)));
        view.show(
            h("div", { class: "stats", dataset: { key: "stats" } },
                stat("Unacknowledged", format.count(one.messages_unacknowledged)), stat("Unconfirmed", format.count(one.messages_unconfirmed)),
                stat("Consumers", format.count(one.consumer_count)), stat("Prefetch", one.prefetch_count === 0 ? "unlimited" : format.count(one.prefetch_count))),
            h("div", { class: "charts", dataset: { key: "charts" } }, rates.element),
            section("Consumers", {}, consumers.length === 0 ? empty("No consumers", "This channel subscribes to no queue.") : table("Consumers", [
                { label: "Consumer tag", head: true, cell: (consumer) => consumer.consumer_tag },
                { label: "Queue", cell: (consumer) => h("a", { href: link("queues", consumer.queue.vhost, consumer.queue.name) }, consumer.queue.name) },
                { label: "Acknowledges", cell: (consumer) => (consumer.ack_required ? "by hand" : "automatically") },
                { label: "Prefetch", number: true, cell: (consumer) => (consumer.prefetch_count === 0 ? "unlimited" : format.count(consumer.prefetch_count)) },
                { label: "Arguments", cell: (consumer) => pairs(consumer.arguments) },
            ], consumers, (consumer) => consumer.consumer_tag)),
            section("Details", {}, h("div", { class: "panel" }, facts([
                ["Connection", h("a", { href: link("connections", one.connection_details.name) }, one.connection_details.name)], ["User", one.user], ["Virtual host", one.vhost], ["Number", format.count(one.number)],
                ["Published", format.count(stats.publish)], ["Confirmed", format.count(stats.confirm)], ["Delivered", format.count(stats.deliver_get)], ["Acknowledged", format.count(stats.ack)], ["Redelivered", format.count(stats.redeliver)],
                ["Returned or dropped, with no queue to go to", format.count(stats.return_unroutable + stats.drop_unroutable)],
                ["Confirms", one.confirm ? "on" : "off"], ["Transactions", one.transactional ? "on" : "off"], ["Prefetch of the whole channel", one.global_prefetch_count === 0 ? "unlimited" : format.count(one.global_prefetch_count)],
            ]))),
        );
    });
}
