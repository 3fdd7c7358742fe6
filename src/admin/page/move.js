// Moving messages from one queue to another, a bounded number with each request, until all that were meant are there.
// @ts-check
import * as api from "./api.js";
import { h, replace } from "./dom.js";
import * as format from "./format.js";
import { bar, button, form, say, section } from "./ui.js";

/** Messages of one request. */
const BATCH = 500;

/** @param {import("./shell.js").View} view @param {{ vhost: string, name: string, path: string, changed: () => void }} options */
export function movePanel(view, { vhost, name, path, changed }) {
    const progress = h("div", { "aria-live": "polite" });
    const panel = form({
        label: "Move messages", action: "Move messages", keep: true, tone: "",
        fields: [
            { name: "destination", label: "To queue", required: true, hint: `In virtual host ${vhost}` },
            { name: "count", label: "How many", kind: "number", min: 1, hint: "Empty: all that wait now" },
        ],
        submit: async ({ destination, count }) => {
            if (destination === name) throw new api.ApiError(0, "That is this queue.", "Name another one.");
            const stop = new AbortController();
            const state = await api.get(path, { columns: "messages_ready" });
            const wanted = Math.min(count ?? Infinity, state.messages_ready);
            let moved = 0;
            const show = () => replace(progress, h("div", { class: "moving" }, h("span", null, `${format.count(moved)} of ${format.count(wanted)} moved`),
                bar(wanted === 0 ? 1 : moved / wanted, "Messages moved"), button("Stop", () => stop.abort(), { tone: "small" })));
            try {
                while (moved < wanted && !stop.signal.aborted && !view.signal.aborted) {
                    show();
                    const answer = await api.post(`${path}/move`, { destination, count: Math.min(BATCH, wanted - moved) });
                    moved += answer.moved;
                    if (answer.moved === 0) break;
                }
                say(`${format.plural(moved, "message")} moved to ${destination}.`);
            } finally {
                replace(progress, moved > 0 && h("p", { class: "hint" }, `${format.plural(moved, "message")} moved to ${destination}.`));
                changed();
            }
        },
    });
    const element = section("Move messages", { note: "Into another queue, in their order." }, h("div", { class: "panel" }, panel, progress));
    element.dataset.own = "";
    return element;
}
