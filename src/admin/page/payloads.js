// The payloads in this broker's store.
// @ts-check
import { h } from "./dom.js";
import * as format from "./format.js";
import { link } from "./router.js";
import { short } from "./swarms.js";
import { list } from "./table.js";
import { badge, empty } from "./ui.js";

/** @param {import("./shell.js").View} view */
export default function payloads(view) {
    view.head("Payloads", { lead: "Large bodies, stored once however many messages hold them. One that nothing needs any more goes after its retention time." });
    view.show(list(view, {
        name: "Payloads",
        path: "/swarm/payloads",
        key: (payload) => `${payload.vhost}\n${payload.id}`,
        nothing: empty("No payloads", "Bodies from 1 MiB on (the setting payload.threshold) are stored as payloads."),
        columns: [
            { label: "Id", head: true, sort: "id", cell: (payload) => (payload.transfer ? h("a", { class: "mono", href: link("swarms", payload.id), title: payload.id }, short(payload.id)) : h("span", { class: "mono", title: payload.id }, short(payload.id))) },
            { label: "Virtual host", sort: "vhost", cell: (payload) => payload.vhost },
            { label: "Size", sort: "size_bytes", number: true, cell: (payload) => format.bytes(payload.size_bytes) },
            { label: "Pieces", sort: "piece_count", number: true, wide: true, cell: (payload) => format.count(payload.piece_count) },
            { label: "State", sort: "state", cell: (payload) => h("span", { class: "dots" }, badge(payload.state, payload.state === "complete" ? "good" : "accent"), payload.pinned && badge("pinned")) },
            { label: "Needed by", sort: "references", number: true, cell: (payload) => format.count(payload.references) },
            { label: "Peers", sort: "peers", number: true, cell: (payload) => format.count(payload.peers) },
            { label: "Goes", number: true, cell: (payload) => (payload.idle_ms === null ? "–" : `in ${format.duration(Math.max(0, payload.retention_ms - payload.idle_ms))}`) },
        ],
    }));
}
