// One exchange: where it sends, and publishing to it.
// @ts-check
import * as api from "./api.js";
import { bindingsOf, inPath } from "./bindings.js";
import { h } from "./dom.js";
import { exchangeName } from "./format.js";
import { features } from "./exchanges.js";
import { publishPanel } from "./messages.js";
import { go } from "./router.js";
import { badge, button, confirm, facts, pairs, section } from "./ui.js";

/** @param {import("./shell.js").View} view */
export default function exchange(view) {
    const { vhost, name } = view.params;
    const path = api.at`/exchanges/${vhost}/${inPath(name)}`;
    const isOwn = name === "" || name.startsWith("amq.");
    const actions = isOwn ? null : button("Delete", () => confirm({
        title: `Delete ${name}?`, action: "Delete exchange", done: `Exchange ${name} is deleted.`, then: () => go("#/exchanges"),
        text: "The exchange goes with all its bindings. Clients that publish to it are told that it is not there.",
        run: () => api.remove(path),
    }), { tone: "warnable" });
    view.head(exchangeName(name), { kind: "Exchange", back: ["Exchanges", "#/exchanges"], actions });
    const from = bindingsOf(view, { vhost, name, end: "source" });
    const to = name === "" ? null : bindingsOf(view, { vhost, name, end: "destination" });
    const publish = publishPanel({ path: `${path}/publish`, routingKey: "", changed: () => {} });
    view.poll(10_000, async () => {
        const state = await api.get(path, {}, view.signal);
        view.head(exchangeName(name), { kind: "Exchange", back: ["Exchanges", "#/exchanges"], actions, lead: [`In virtual host ${vhost} · `, badge(state.type, "accent"), " ", features(state)] });
        view.show(from, to, state.internal ? null : publish, section("Details", {}, h("div", { class: "panel" }, facts([["Type", state.type], ["Policy", state.policy ?? "none"], ["Arguments", pairs(state.arguments)]]))));
    });
}
