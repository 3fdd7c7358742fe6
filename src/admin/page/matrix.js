// Who serves whom: givers down the side, receivers along the top, the darker the more.
// Bound: MACHINES_MAX on each side; the ones that moved least are left out.
// @ts-check
import { h } from "./dom.js";
import * as format from "./format.js";
import { empty } from "./ui.js";

const MACHINES_MAX = 16;

/** @param {{ from: string, to: string, bytes: number, rate: number }[]} edges @param {{ name: string }[]} machines */
export function matrix(edges, machines) {
    const moved = edges.filter((edge) => edge.bytes > 0);
    if (moved.length === 0) return empty("Nothing has moved yet", "As soon as machines exchange pieces, it shows who gave to whom.");
    /** @param {"from" | "to"} end */
    const names = (end) => {
        const totals = new Map();
        for (const edge of moved) totals.set(edge[end], (totals.get(edge[end]) ?? 0) + edge.bytes);
        const order = machines.map((machine) => machine.name);
        return [...totals.entries()].sort((one, other) => other[1] - one[1]).slice(0, MACHINES_MAX).map(([name]) => name)
            .sort((one, other) => order.indexOf(one) - order.indexOf(other));
    };
    const [givers, receivers] = [names("from"), names("to")];
    const most = Math.max(...moved.map((edge) => edge.bytes));
    const cell = (/** @type {string} */ from, /** @type {string} */ to) => {
        const edge = moved.find((one) => one.from === from && one.to === to);
        if (!edge) return h("td", { class: "cell" }, h("span", { class: "unseen" }, "nothing"));
        const strength = 0.12 + 0.88 * (edge.bytes / most);
        return h("td", { class: `cell ${edge.rate > 0 ? "live" : ""}`, title: `${from} → ${to}: ${format.bytes(edge.bytes)}, now ${format.byteRate(edge.rate)}` },
            h("span", { class: "heat", style: { opacity: strength.toFixed(2) } }), h("span", { class: "amount" }, format.bytes(edge.bytes)));
    };
    return h("div", { class: "table-box", tabindex: 0, role: "group", "aria-label": "Who serves whom" },
        h("table", { class: "matrix" },
            h("thead", null, h("tr", null, h("th", { scope: "col" }, "From \\ to"), receivers.map((name) => h("th", { scope: "col" }, name)))),
            h("tbody", null, givers.map((from) => h("tr", { dataset: { key: from } }, h("th", { scope: "row" }, from), receivers.map((to) => cell(from, to)))))));
}
