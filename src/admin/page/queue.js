// One queue: what it holds and who uses it, and what can be done to it.
// @ts-check
import * as api from "./api.js";
import { bindingsOf } from "./bindings.js";
import { chart } from "./chart.js";
import { h } from "./dom.js";
import * as format from "./format.js";
import { note, samples } from "./history.js";
import { messagesPanel, publishPanel } from "./messages.js";
import { movePanel } from "./move.js";
import { kind } from "./queues.js";
import { go, link } from "./router.js";
import { table } from "./table.js";
import { badge, button, confirm, empty, facts, pairs, section, stat } from "./ui.js";

const INTERVAL_MS = 2_500;
const RATES = /** @type {[string, string][]} */ ([["publish", "Published"], ["deliver_get", "Delivered"], ["ack", "Acknowledged"], ["redeliver", "Redelivered"]]);

/** @param {import("./shell.js").View} view */
export default function queue(view) {
    const { vhost, name } = view.params;
    const path = api.at`/queues/${vhost}/${name}`;
    const actions = [
        button("Purge", () => purge(name, path, refresh), { tone: "warnable" }),
        button("Delete", () => remove(name, path), { tone: "warnable" }),
    ];
    const head = (/** @type {any} */ lead) => view.head(name, { kind: "Queue", back: ["Queues", "#/queues"], actions, lead });
    head(null);
    const series = `queue ${vhost} ${name}`;
    const queued = chart({ title: "Queued messages", series: ["Ready", "Unacknowledged"], format: format.compact, least: 4 });
    const rates = chart({ title: "Message rates", series: RATES.map(([, label]) => label), format: format.rate, least: 4 });
    queued.show(samples(`${series} queued`));
    rates.show(samples(`${series} rates`));
    const refreshSoon = () => refresh();
    const messages = messagesPanel({ path, changed: refreshSoon });
    const publish = publishPanel({ path: api.at`/exchanges/${vhost}/${"amq.default"}/publish`, routingKey: name, changed: refreshSoon });
    const move = movePanel(view, { vhost, name, path, changed: refreshSoon });
    const bindings = bindingsOf(view, { vhost, name, end: "queue" });

    const refresh = view.poll(INTERVAL_MS, async () => {
        const state = await api.get(path, {}, view.signal);
        const stats = state.message_stats ?? {};
        queued.show(note(`${series} queued`, [state.messages_ready, state.messages_unacknowledged]));
        rates.show(note(`${series} rates`, RATES.map(([key]) => stats[`${key}_details`]?.rate)));
        head([`In virtual host ${vhost} · `, kind(state)]);
        view.show(
            h("div", { class: "stats", dataset: { key: "stats" } },
                stat("Ready", format.compact(state.messages_ready), { note: format.bytes(state.message_bytes_ready) }),
                stat("Unacknowledged", format.compact(state.messages_unacknowledged), { note: format.bytes(state.message_bytes_unacknowledged) }),
                stat("Published", format.rate(stats.publish_details?.rate), { note: `${format.compact(stats.publish)} so far` }),
                stat("Delivered", format.rate(stats.deliver_get_details?.rate), { note: `${format.compact(stats.deliver_get)} so far` })),
            h("div", { class: "charts", dataset: { key: "charts" } }, queued.element, rates.element),
            section("Consumers", { note: format.plural(state.consumers, "consumer") }, consumers(state)),
            messages, publish, move, bindings,
            section("Details", {}, h("div", { class: "panel" }, facts([
                ["State", badge(state.state, state.state === "running" ? "good" : "warn")],
                ["Node", state.node],
                ["Durable", state.durable ? "yes" : "no"],
                ["Auto-delete", state.auto_delete ? "yes" : "no"],
                ["Exclusive", state.exclusive ? "yes" : "no"],
                ["Policy", state.policy ? h("a", { href: link("policies") }, state.policy) : "none"],
                ["Operator policy", state.operator_policy || "none"],
                ["Single active consumer", state.single_active_consumer_tag ?? "–"],
                ["Arguments", pairs(state.arguments)],
                ["In effect from policies", pairs(state.effective_policy_definition)],
            ]))),
        );
    });
}

/** @param {any} state */
function consumers(state) {
    const { consumer_details: details = [] } = state;
    if (details.length === 0) return empty("Nobody consumes from this queue", "Messages wait until a client subscribes or fetches them.");
    return table("Consumers", [
        { label: "Consumer tag", head: true, cell: (one) => one.consumer_tag },
        { label: "Channel", cell: (one) => (one.channel_details?.name ? h("a", { href: link("channels", one.channel_details.name) }, one.channel_details.name) : "–") },
        { label: "State", cell: (one) => badge(String(one.activity_status ?? "up").replaceAll("_", " "), one.active === false ? "neutral" : "good") },
        { label: "Acknowledges", cell: (one) => (one.ack_required ? "by hand" : "automatically") },
        { label: "Prefetch", number: true, cell: (one) => (one.prefetch_count === 0 ? "unlimited" : format.count(one.prefetch_count)) },
        { label: "Arguments", wide: true, cell: (one) => pairs(one.arguments) },
    ], details, (one) => `${one.channel_details?.name}\n${one.consumer_tag}`);
}

/** @param {string} name @param {string} path @param {() => void} changed */
function purge(name, path, changed) {
    confirm({
        title: `Purge ${name}?`, action: "Purge queue", done: `Queue ${name} is empty.`, then: changed,
        text: "All messages that wait in it are gone for good. Those that consumers hold unacknowledged stay.",
        run: () => api.remove(`${path}/contents`),
    });
}

/** @param {string} name @param {string} path */
function remove(name, path) {
    confirm({
        title: `Delete ${name}?`, action: "Delete queue", done: `Queue ${name} is deleted.`, then: () => go("#/queues"),
        text: "The queue goes with all its messages and bindings; its consumers are cancelled.",
        run: () => api.remove(path),
    });
}
