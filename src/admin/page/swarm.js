// One swarm: its pieces as they spread, each machine's progress, and who serves whom.
// @ts-check
import * as api from "./api.js";
import { chart } from "./chart.js";
import { h } from "./dom.js";
import * as format from "./format.js";
import { note, samples } from "./history.js";
import { matrix } from "./matrix.js";
import { decode, held, pieceMap } from "./pieces.js";
import { link } from "./router.js";
import { progress, short } from "./swarms.js";
import { table } from "./table.js";
import { badge, empty, facts, section, stat } from "./ui.js";

/** Machines whose piece maps are drawn at once. */
const MAPS_MAX = 24;

/** @param {import("./shell.js").View} view */
export default function swarm(view) {
    const { id } = view.params;
    const series = `swarm ${id}`;
    const rates = chart({ title: "Rates of all machines", series: ["Received", "From the origin"], format: format.byteRate, size: "bytes", least: 1024, spanMs: 180_000 });
    rates.show(samples(series));
    const availability = pieceMap("Copies of each piece");
    /** @type {Map<string, ReturnType<typeof pieceMap>>} */
    const maps = new Map();
    const mapOf = (/** @type {any} */ machine) => {
        const key = machine.swarm_id ?? machine.name;
        let map = maps.get(key);
        if (!map) maps.set(key, (map = pieceMap(`Pieces of ${machine.name}`)));
        map.show(held(machine.map, machine.piece_count));
        return map.element;
    };
    view.head(short(id), { kind: "Swarm", back: ["Swarms", "#/swarms"] });
    view.poll(1_000, async () => {
        const state = await api.get(api.at`/swarm/swarms/${id}`, {}, view.signal);
        const machines = state.machines ?? [];
        const fromOrigin = (state.edges ?? []).filter((/** @type {any} */ edge) => edge.from === state.origin?.name).reduce((/** @type {number} */ sum, /** @type {any} */ edge) => sum + edge.rate, 0);
        rates.show(note(series, [state.down_rate, state.origin ? fromOrigin : null]));
        availability.show(state.availability ? decode(state.availability) : null, Math.max(1, state.members));
        view.head(state.name || short(id), { kind: "Swarm", back: ["Swarms", "#/swarms"], lead: [h("code", null, state.id)] });
        view.show(
            h("div", { class: "stats", dataset: { key: "stats" } },
                stat("Progress", format.percent(state.progress), { note: `${format.count(state.seeds)} of ${format.plural(state.members, "machine")} hold all of it` }),
                stat("Rate", format.byteRate(state.down_rate), { note: `${format.bytes(state.down_bytes)} received so far` }),
                stat("Copies from the origin", state.origin ? state.origin.copies.toFixed(2) : "–", { note: state.origin ? `${format.bytes(state.origin.up_bytes)} from ${state.origin.name}` : "the origin has not told" }),
                stat("Origin's share", state.origin && state.origin.share !== null ? format.percent(state.origin.share) : "–", { note: "of all bytes sent; the rest came from each other" })),
            section("Pieces", { note: `${format.plural(state.piece_count, "piece")} of ${format.bytes(state.piece_bytes)}; the fuller a cell, the more machines hold it.` }, h("div", { class: "panel" }, availability.element)),
            section("Machines", { note: machines.length > MAPS_MAX ? `The first ${MAPS_MAX} of ${machines.length} with their maps.` : "" },
                machines.length === 0 ? empty("No machine tells of it", "Nodes report about once a second while this page is open.")
                    : h("div", { class: "machines" }, machines.slice(0, MAPS_MAX).map((/** @type {any} */ machine) => machineCard(machine, mapOf(machine), state)))),
            h("div", { class: "columns", dataset: { key: "who" } },
                section("Who serves whom", { note: "From the left to the top." }, matrix(state.edges ?? [], machines)), h("div", { class: "charts", dataset: { key: "rates" } }, rates.element)),
            section("Peers", {}, peers(machines)),
            section("Details", {}, h("div", { class: "panel" }, facts([
                ["Size", format.bytes(state.size_bytes)], ["Piece size", format.bytes(state.piece_bytes)], ["Pieces", format.count(state.piece_count)], ["Names", (state.names ?? []).join(", ") || "–"],
                ["Received twice", format.bytes(state.duplicate_bytes)], ["Did not verify", format.bytes(state.bad_bytes)], ["Bad pieces", state.bad_pieces > 0 ? badge(format.count(state.bad_pieces), "bad") : "0"],
            ]))),
        );
    });
}

/** @param {any} machine @param {Element} map @param {any} state */
function machineCard(machine, map, state) {
    const tone = machine.state === "complete" ? "good" : machine.state === "failed" ? "bad" : "accent";
    return h("article", { class: "machine panel", dataset: { key: machine.swarm_id ?? machine.name } },
        h("header", null,
            h("h3", null, machine.role === "node" ? h("a", { href: link("nodes", machine.vhost ?? "/", machine.name) }, machine.name) : machine.name),
            state.origin?.name === machine.name && badge("origin", "neutral", "Gave the payload to the swarm"), machine.role !== "node" && badge(machine.role), badge(machine.state, tone)),
        progress(machine.progress, machine.name, machine.state === "failed" ? "bad" : ""),
        map,
        h("p", { class: "hint" }, `↓ ${format.byteRate(machine.down_rate)}  ↑ ${format.byteRate(machine.up_rate)}  ·  got ${format.bytes(machine.down_bytes)}, gave ${format.bytes(machine.up_bytes)}`));
}

/** @param {any[]} machines */
function peers(machines) {
    const rows = machines.flatMap((machine) => (machine.peers ?? []).map((/** @type {any} */ peer) => ({ ...peer, at: machine.name }))).slice(0, 200);
    if (rows.length === 0) return empty("No connections", "Nobody is connected to anybody for this payload now.");
    const name = (/** @type {any} */ peer) => peer.name ?? short(peer.swarm_id ?? peer.address);
    return table("Peers", [
        { label: "Machine", head: true, cell: (peer) => peer.at },
        { label: "Its peer", cell: (peer) => [name(peer), peer.address && h("small", { class: "below" }, peer.address)] },
        { label: "Holds", number: true, cell: (peer) => (peer.address ? format.percent(peer.fraction) : badge("gone", "neutral", "No longer connected")) },
        { label: "From it", number: true, cell: (peer) => [format.byteRate(peer.down_rate), h("small", { class: "below" }, format.bytes(peer.down_bytes))] },
        { label: "To it", number: true, cell: (peer) => [format.byteRate(peer.up_rate), h("small", { class: "below" }, format.bytes(peer.up_bytes))] },
        { label: "Pieces", number: true, wide: true, cell: (peer) => format.count(peer.pieces) },
        { label: "In flight", number: true, wide: true, cell: (peer) => `${format.count(peer.requests)} / ${format.bytes(peer.window_bytes)}` },
        { label: "Stalls", number: true, wide: true, cell: (peer) => format.count(peer.stalls) },
    ], rows, (peer) => `${peer.at}\n${peer.swarm_id}\n${peer.address}`);
}
