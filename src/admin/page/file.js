// One file: what reached whom, when, with what error; and trying again.
// @ts-check
import * as api from "./api.js";
import { h } from "./dom.js";
import * as format from "./format.js";
import { fileState } from "./files.js";
import { link } from "./router.js";
import { progress } from "./swarms.js";
import { table } from "./table.js";
import { badge, button, empty, facts, say, section, stat } from "./ui.js";

/** @param {import("./shell.js").View} view */
export default function file(view) {
    const { vhost, id } = view.params;
    const path = api.at`/swarm/files/${vhost}/${id}`;
    /** @param {string[]} [nodes] */
    const retry = async (nodes) => {
        try {
            const { asked, offline } = await api.post(`${path}/retry`, nodes ? { nodes } : undefined);
            if (asked.length > 0) say(`${asked.join(", ")}: asked to try again.${offline.length > 0 ? ` Off line: ${offline.join(", ")}.` : ""}`);
            else if (offline.length > 0) say(`${offline.join(", ")} is off line and cannot be asked now.`, "bad");
            else say("It has not failed there.", "bad");
        } catch (error) {
            view.fail(error);
        }
        refresh();
    };
    view.head(id, { kind: "File", back: ["Files", "#/files"] });
    const refresh = view.poll(1_500, async () => {
        const state = await api.get(path, {}, view.signal);
        const nodes = state.nodes ?? [];
        view.head(state.name || id, {
            kind: "File", back: ["Files", "#/files"], lead: fileState(state.state),
            actions: state.failed > 0 && api.may("administrator") && button("Try failed nodes again", () => retry(), { tone: "primary" }),
        });
        view.show(
            h("div", { class: "stats", dataset: { key: "stats" } },
                stat("Progress", format.percent(state.progress)), stat("Complete", `${format.count(state.complete)} of ${format.count(state.expected)}`, { note: "nodes" }),
                stat("Fetching", format.count(state.fetching)), stat("Failed", format.count(state.failed))),
            section("Nodes", {}, nodes.length === 0 ? empty("No node has answered", "Nodes of the group report as soon as they have read the announcement.") : table("Nodes", [
                { label: "Node", head: true, cell: (node) => h("a", { href: link("nodes", vhost, node.node) }, node.node) },
                { label: "State", cell: (node) => [fileState(node.state), node.online === false && badge("off line", "warn"), node.attempt > 0 && h("small", null, ` attempt ${node.attempt + 1}`), node.reason && h("p", { class: "bad reason" }, node.reason)] },
                { label: "Progress", cell: (node) => progress(node.progress, node.node, node.state === "failed" ? "bad" : "") },
                { label: "Pieces", number: true, wide: true, cell: (node) => (node.piece_count ? `${format.count(node.pieces_done)} of ${format.count(node.piece_count)}` : "–") },
                { label: "Began", number: true, wide: true, cell: (node) => format.time(node.since_unix_ms) },
                { label: "Ended", number: true, cell: (node) => [format.time(node.ended_unix_ms), node.ended_unix_ms && node.since_unix_ms && h("small", { class: "below" }, `after ${format.duration(node.ended_unix_ms - node.since_unix_ms)}`)] },
                { label: "", number: true, cell: (node) => node.state === "failed" && api.may("administrator") && button("Try again", () => retry([node.node]), { tone: "small", label: `Try again on ${node.node}` }) },
            ], nodes, (node) => node.node)),
            section("Details", {}, h("div", { class: "panel" }, facts([
                ["Size", format.bytes(state.size_bytes)], ["Group", state.group ?? "–"], ["Way", state.way], ["Sender", state.sender ?? "–"], ["Sent", format.time(state.sent_unix_ms)], ["Message", state.id], ["Virtual host", state.vhost],
                ["Payload", state.payload_id && state.way === "swarm" ? h("a", { href: link("swarms", state.payload_id) }, state.payload_id) : state.payload_id],
            ]))));
    });
}
