// All swarms: what is being handed from machine to machine now, and what is served.
// @ts-check
import * as api from "./api.js";
import { chart } from "./chart.js";
import { h } from "./dom.js";
import * as format from "./format.js";
import { note, samples } from "./history.js";
import { link } from "./router.js";
import { list } from "./table.js";
import { badge, bar, empty, stat } from "./ui.js";

/** @param {import("./shell.js").View} view */
export default function swarms(view) {
    view.head("Swarms", { lead: "Payloads that machines fetch from each other. Each piece is checked before it is kept and passed on." });
    const rates = chart({ title: "This broker's part", series: ["Sent", "Received"], format: format.byteRate, size: "bytes", least: 1024 });
    rates.show(samples("swarm rates"));
    const all = list(view, {
        name: "Swarms",
        path: "/swarm/swarms",
        intervalMs: 2_000,
        key: (swarm) => swarm.id,
        nothing: empty("No swarms", "Send a file with ", h("code", null, "warren send FILE --group GROUP"), ", or publish a message with a large body, and follow it here."),
        columns: [
            { label: "Name", head: true, sort: "name", cell: (swarm) => [h("a", { href: link("swarms", swarm.id) }, swarm.name || short(swarm.id)), h("small", { class: "below mono" }, short(swarm.id))] },
            { label: "Size", sort: "size_bytes", number: true, cell: (swarm) => format.bytes(swarm.size_bytes) },
            { label: "Progress", sort: "progress", cell: (swarm) => progress(swarm.progress, swarm.name) },
            { label: "Machines", sort: "members", number: true, cell: (swarm) => format.count(swarm.members) },
            { label: "Fetching", sort: "fetching", number: true, cell: (swarm) => format.count(swarm.fetching) },
            { label: "Rate", sort: "down_rate", number: true, cell: (swarm) => format.byteRate(swarm.down_rate) },
            { label: "Copies from the origin", wide: true, number: true, cell: (swarm) => (swarm.origin ? swarm.origin.copies.toFixed(2) : "–") },
            { label: "Bad pieces", wide: true, sort: "bad_pieces", number: true, cell: (swarm) => (swarm.bad_pieces > 0 ? badge(format.count(swarm.bad_pieces), "bad") : "0") },
        ],
    });
    view.poll(2_000, async () => {
        const state = await api.get("/swarm", {}, view.signal);
        rates.show(note("swarm rates", [state.up_rate, state.down_rate]));
        view.show(
            h("div", { class: "stats", dataset: { key: "stats" } },
                stat("Swarms", format.count(state.swarms.count), { note: `${format.count(state.swarms.fetching)} with machines that fetch` }),
                stat("Nodes", format.count(state.nodes.online), { note: `on line; ${format.count(state.nodes.offline)} off line`, href: "#/nodes" }),
                stat("Files", format.count(state.files.count), { note: `${format.count(state.files.running)} on their way, ${format.count(state.files.failed)} failed`, href: "#/files" }),
                stat("Stored here", format.bytes(state.payloads.stored_bytes), { note: format.plural(state.payloads.count, "payload"), href: "#/payloads" })),
            h("div", { class: "charts", dataset: { key: "charts" } }, rates.element), all);
    });
}

/** The first digits of an id. @param {string} id */
export const short = (id) => String(id).slice(0, 12);

/** @param {number | null} share @param {string} of @param {string} [tone] */
export const progress = (share, of, tone) => h("div", { class: "level" }, h("span", null, format.percent(share)), bar(share, `Progress of ${of}`, tone));
