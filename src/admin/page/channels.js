// All channels.
// @ts-check
import * as api from "./api.js";
import { h } from "./dom.js";
import * as format from "./format.js";
import { link } from "./router.js";
import { list } from "./table.js";
import { badge, empty } from "./ui.js";

/** @param {import("./shell.js").View} view */
export default function channels(view) {
    view.head("Channels");
    view.show(list(view, {
        name: "Channels",
        path: "/channels",
        pathIn: (vhost) => api.at`/vhosts/${vhost}/channels`,
        key: (channel) => channel.name,
        nothing: empty("No channels", "Clients open them inside their connections."),
        columns: channelColumns(),
    }));
}

/** @returns {import("./table.js").Column[]} */
export const channelColumns = () => [
    { label: "Channel", head: true, sort: "name", cell: (channel) => h("a", { href: link("channels", channel.name) }, channel.name) },
    { label: "User", sort: "user", cell: (channel) => channel.user },
    { label: "Virtual host", sort: "vhost", wide: true, cell: (channel) => channel.vhost },
    { label: "Mode", cell: (channel) => h("span", { class: "dots" }, channel.confirm && badge("confirms", "accent"), channel.transactional && badge("transactions", "accent"), !channel.confirm && !channel.transactional && badge("plain")) },
    { label: "Consumers", sort: "consumer_count", number: true, cell: (channel) => format.count(channel.consumer_count) },
    { label: "Prefetch", sort: "prefetch_count", number: true, cell: (channel) => (channel.prefetch_count === 0 ? "unlimited" : format.count(channel.prefetch_count)) },
    { label: "Published", sort: "message_stats.publish_details.rate", number: true, cell: (channel) => format.rate(channel.message_stats.publish_details.rate) },
    { label: "Delivered", sort: "message_stats.deliver_get_details.rate", number: true, cell: (channel) => format.rate(channel.message_stats.deliver_get_details.rate) },
    { label: "Acked", sort: "message_stats.ack_details.rate", number: true, wide: true, cell: (channel) => format.rate(channel.message_stats.ack_details.rate) },
    { label: "Unacked", sort: "messages_unacknowledged", number: true, cell: (channel) => format.count(channel.messages_unacknowledged) },
    { label: "Unconfirmed", sort: "messages_unconfirmed", number: true, wide: true, cell: (channel) => format.count(channel.messages_unconfirmed) },
];
