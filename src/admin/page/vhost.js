// One virtual host: who may use it, and its limits.
// @ts-check
import * as api from "./api.js";
import { h } from "./dom.js";
import * as format from "./format.js";
import { limitsOf } from "./limits.js";
import { grants, topicGrants } from "./permissions.js";
import { go, link } from "./router.js";
import { button, confirm, say, stat } from "./ui.js";

/** @param {import("./shell.js").View} view */
export default function vhost(view) {
    const { name } = view.params;
    const path = api.at`/vhosts/${name}`;
    const isAdministrator = api.may("administrator");
    const rights = isAdministrator ? [grants(view, { vhost: name }), topicGrants(view, { vhost: name })] : [];
    const limits = isAdministrator ? limitsOf(view, "vhost", name) : null;
    const refresh = view.poll(5_000, async () => {
        const state = await api.get(path, {}, view.signal);
        view.head(name, {
            kind: "Virtual host", back: ["Virtual hosts", "#/vhosts"], lead: state.description,
            actions: isAdministrator && [
                button(state.tracing ? "Stop tracing" : "Start tracing", async () => {
                    const { description, tags, default_queue_type: type } = state;
                    await api.put(path, { description, tags, tracing: !state.tracing, ...(type === "undefined" ? {} : { default_queue_type: type }) })
                        .then(() => say(state.tracing ? "Tracing is off." : "Every message is also published to amq.rabbitmq.trace."), (error) => view.fail(error));
                    refresh();
                }, { hint: "Copies every message to the exchange amq.rabbitmq.trace" }),
                button("Delete", () => confirm({
                    title: `Delete ${name}?`, action: "Delete virtual host", done: `Virtual host ${name} is deleted.`, then: () => go("#/vhosts"),
                    text: "It goes with all its queues, messages, exchanges, policies and permissions, and its connections are closed. This cannot be undone.",
                    run: () => api.remove(path),
                }), { tone: "warnable" }),
            ],
        });
        view.show(
            h("div", { class: "stats", dataset: { key: "stats" } },
                stat("Ready", format.compact(state.messages_ready)), stat("Unacknowledged", format.compact(state.messages_unacknowledged)),
                stat("Queues", "Show", { href: `${link("queues")}?vhost=${encodeURIComponent(name)}` }), stat("Connections", "Show", { href: `${link("connections")}?vhost=${encodeURIComponent(name)}` })),
            rights, limits);
    });
}
