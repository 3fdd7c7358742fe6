// All exchanges, and adding one.
// @ts-check
import * as api from "./api.js";
import { h } from "./dom.js";
import { exchangeName } from "./format.js";
import { icon } from "./icons.js";
import { go, link } from "./router.js";
import { list, vhostNames } from "./table.js";
import { badge, button, empty, formDialog, pairs, say } from "./ui.js";

const TYPES = ["direct", "fanout", "topic", "headers", "x-consistent-hash", "x-modulus-hash", "x-random", "x-local-random", "x-recent-history", "x-delayed-message"];

/** @param {import("./shell.js").View} view */
export default function exchanges(view) {
    view.head("Exchanges", { actions: button([icon("plus"), "Add exchange"], () => addExchange(view), { tone: "primary" }) });
    view.show(list(view, {
        name: "Exchanges",
        path: "/exchanges",
        pathIn: (vhost) => api.at`/exchanges/${vhost}`,
        intervalMs: 10_000,
        key: (exchange) => `${exchange.vhost}\n${exchange.name}`,
        nothing: empty("No exchanges", "Every virtual host has some of its own; you may look into none."),
        columns: [
            { label: "Name", head: true, sort: "name", cell: (exchange) => h("a", { href: link("exchanges", exchange.vhost, exchange.name) }, exchangeName(exchange.name)) },
            { label: "Virtual host", sort: "vhost", cell: (exchange) => exchange.vhost },
            { label: "Type", sort: "type", cell: (exchange) => badge(exchange.type, "accent") },
            { label: "Features", cell: features },
            { label: "Policy", sort: "policy", wide: true, cell: (exchange) => exchange.policy ?? "–" },
            { label: "Arguments", wide: true, cell: (exchange) => pairs(exchange.arguments) },
        ],
    }));
}

/** @param {any} exchange */
export const features = (exchange) => h("span", { class: "dots" },
    exchange.durable ? badge("durable") : badge("transient", "warn"), exchange.auto_delete && badge("auto-delete"), exchange.internal && badge("internal", "neutral", "Clients cannot publish to it"));

/** @param {import("./shell.js").View} view */
async function addExchange(view) {
    const vhosts = await vhostNames(view).catch(() => ["/"]);
    formDialog("Add an exchange", {
        action: "Add exchange",
        fields: [
            { name: "name", label: "Name", required: true, wide: true },
            { name: "vhost", label: "Virtual host", kind: "select", options: vhosts },
            { name: "type", label: "Type", kind: "select", options: TYPES },
            { name: "durable", label: "Durable: survives a restart", kind: "checkbox", value: true },
            { name: "auto_delete", label: "Goes with its last binding", kind: "checkbox" },
            { name: "internal", label: "Internal: no client publishes to it", kind: "checkbox" },
            { name: "alternate", label: "Alternate exchange", hint: "Takes what finds no queue here" },
            { name: "arguments", label: "Further arguments", kind: "json", hint: "JSON, may be empty" },
        ],
        submit: async ({ name, vhost, type, durable, auto_delete, internal, alternate, arguments: given }) => {
            const all = alternate === "" ? given : { ...given, "alternate-exchange": alternate };
            await api.put(api.at`/exchanges/${vhost}/${name}`, { type, durable, auto_delete, internal, arguments: all });
            say(`Exchange ${name} is there.`);
            go(link("exchanges", vhost, name));
        },
    });
}
