// The files: what was sent, and how far each has come.
// @ts-check
import { h } from "./dom.js";
import * as format from "./format.js";
import { link } from "./router.js";
import { progress } from "./swarms.js";
import { list } from "./table.js";
import { badge, empty } from "./ui.js";

/** @param {import("./shell.js").View} view */
export default function files(view) {
    view.head("Files", { lead: "What was sent to the nodes, the latest first, and what reached whom." });
    view.show(list(view, {
        name: "Files",
        path: "/swarm/files",
        intervalMs: 2_000,
        key: (file) => `${file.vhost}\n${file.id}`,
        nothing: empty("Nothing was sent yet", "Send a file to all nodes of a group with ", h("code", null, "warren send FILE --group GROUP"), "."),
        columns: [
            { label: "Name", head: true, sort: "name", cell: (file) => h("a", { href: link("files", file.vhost, file.id) }, file.name || file.id) },
            { label: "State", sort: "state", cell: (file) => fileState(file.state) },
            { label: "Progress", sort: "progress", cell: (file) => progress(file.progress, file.name, file.state === "failed" ? "bad" : "") },
            { label: "Nodes", sort: "complete", number: true, cell: (file) => `${format.count(file.complete)} of ${format.count(file.expected)}` },
            { label: "Failed", sort: "failed", number: true, cell: (file) => (file.failed > 0 ? badge(format.count(file.failed), "bad") : "0") },
            { label: "Size", sort: "size_bytes", number: true, cell: (file) => format.bytes(file.size_bytes) },
            { label: "Group", sort: "group", wide: true, cell: (file) => file.group ?? "–" },
            { label: "Way", sort: "way", wide: true, cell: (file) => badge(file.way, file.way === "swarm" ? "accent" : "neutral") },
            { label: "Sent", sort: "sent_unix_ms", number: true, wide: true, cell: (file) => format.time(file.sent_unix_ms) },
        ],
    }));
}

/** @param {string} state */
export const fileState = (state) => badge(state, state === "complete" ? "good" : state === "failed" ? "bad" : state === "announced" ? "neutral" : "accent");
