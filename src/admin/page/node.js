// One node: where it is, what it has room for, what it fetches.
// @ts-check
import * as api from "./api.js";
import { chart } from "./chart.js";
import { h } from "./dom.js";
import * as format from "./format.js";
import { note, samples } from "./history.js";
import { presence } from "./nodes.js";
import { held, pieceMap } from "./pieces.js";
import { link } from "./router.js";
import { progress, short } from "./swarms.js";
import { badge, empty, facts, section, stat } from "./ui.js";

/** @param {import("./shell.js").View} view */
export default function node(view) {
    const { vhost, name } = view.params;
    const series = `node ${vhost} ${name}`;
    const rates = chart({ title: "Rates", series: ["Received", "Sent"], format: format.byteRate, size: "bytes", least: 1024 });
    rates.show(samples(series));
    /** @type {Map<string, ReturnType<typeof pieceMap>>} */
    const maps = new Map();
    view.head(name, { kind: "Node", back: ["Nodes", "#/nodes"] });
    view.poll(2_000, async () => {
        const state = await api.get(api.at`/swarm/nodes/${vhost}/${name}`, {}, view.signal);
        rates.show(note(series, [state.down_rate, state.up_rate]));
        view.head(name, { kind: "Node", back: ["Nodes", "#/nodes"], lead: presence(state) });
        const transfers = state.transfers ?? [];
        view.show(
            h("div", { class: "stats", dataset: { key: "stats" } },
                stat("Free space", format.bytes(state.free_bytes)), stat("Files complete", format.count(state.files?.complete), { note: `${format.count(state.files?.running)} running, ${format.count(state.files?.failed)} failed`, href: "#/files" }),
                stat("Waiting for it", format.count(state.waiting), { note: "messages in its queue" }), stat("Heard of", format.ago(state.seen_ms_ago))),
            h("div", { class: "charts", dataset: { key: "charts" } }, rates.element),
            section("Transfers", {}, transfers.length === 0 ? empty("No transfers", "It neither fetches nor serves anything now.") : h("div", { class: "machines" }, transfers.map((/** @type {any} */ transfer) => {
                let map = maps.get(transfer.id);
                if (!map) maps.set(transfer.id, (map = pieceMap(`Pieces of ${short(transfer.id)}`)));
                map.show(held(transfer.map, transfer.piece_count));
                return h("article", { class: "machine panel", dataset: { key: transfer.id } },
                    h("header", null, h("h3", null, h("a", { href: link("swarms", transfer.id) }, short(transfer.id))), badge(transfer.state, transfer.state === "complete" ? "good" : transfer.state === "failed" ? "bad" : "accent")),
                    progress(transfer.progress, short(transfer.id)), map.element);
            }))),
            section("Details", {}, h("div", { class: "panel" }, facts([
                ["Virtual host", state.vhost], ["Version", state.version ?? "–"], ["Groups", (state.groups ?? []).join(", ")], ["Addresses", (state.addresses ?? []).join(", ")], ["Id in swarms", state.swarm_id ?? "–"], ["Last heard of", format.time(state.seen_unix_ms)],
            ]))));
    });
}
