// The nodes: machines that files are sent to.
// @ts-check
import { h } from "./dom.js";
import * as format from "./format.js";
import { link } from "./router.js";
import { list } from "./table.js";
import { badge, empty } from "./ui.js";

/** @param {import("./shell.js").View} view */
export default function nodes(view) {
    view.head("Nodes", { lead: "Machines that receive files and pass them on. One that is off line gets everything when it returns." });
    view.show(list(view, {
        name: "Nodes",
        path: "/swarm/nodes",
        intervalMs: 3_000,
        key: (node) => `${node.vhost}\n${node.name}`,
        nothing: empty("No nodes yet", "Start one on another machine with ", h("code", null, "warren node --broker amqp://USER:PASSWORD@THIS-HOST --group GROUP --inbox FOLDER"), "."),
        columns: [
            { label: "Name", head: true, sort: "name", cell: (node) => h("a", { href: link("nodes", node.vhost, node.name) }, node.name) },
            { label: "State", sort: "online", cell: presence },
            { label: "Groups", cell: (node) => h("span", { class: "dots" }, (node.groups ?? []).map((/** @type {string} */ group) => badge(group))) },
            { label: "Files", cell: fileCounts },
            { label: "Free", sort: "free_bytes", number: true, cell: (node) => format.bytes(node.free_bytes) },
            { label: "Received", sort: "down_rate", number: true, wide: true, cell: (node) => format.byteRate(node.down_rate) },
            { label: "Sent", sort: "up_rate", number: true, wide: true, cell: (node) => format.byteRate(node.up_rate) },
            { label: "Waiting", sort: "waiting", number: true, wide: true, cell: (node) => format.count(node.waiting) },
            { label: "Version", sort: "version", wide: true, cell: (node) => node.version ?? "–" },
            { label: "Heard", sort: "seen_unix_ms", number: true, cell: (node) => format.ago(node.seen_ms_ago) },
        ],
    }));
}

/** @param {any} node */
export const presence = (node) => h("span", { class: "dots" }, node.online ? badge("on line", "good") : badge("off line", "bad"), node.role !== "node" && badge(node.role));

/** @param {any} node */
function fileCounts({ files }) {
    if (!files) return "–";
    return h("span", { class: "dots" }, files.running > 0 && badge(`${format.count(files.running)} running`, "accent"), badge(`${format.count(files.complete)} complete`, files.complete > 0 ? "good" : "neutral"), files.failed > 0 && badge(`${format.count(files.failed)} failed`, "bad"));
}
