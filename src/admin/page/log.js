// The end of the broker's log, as it grows.
// Bound: LINES_MAX lines on the page; the broker keeps some thousand of its latest.
// @ts-check
import * as api from "./api.js";
import { h, replace } from "./dom.js";
import { icon } from "./icons.js";
import { button } from "./ui.js";

const LINES_MAX = 2_000;
const LEVELS = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"];

/** @param {import("./shell.js").View} view */
export default function log(view) {
    /** @type {any[]} */
    let lines = [];
    let after = 0, isPaused = false, least = "TRACE", wanted = "";
    const box = h("div", { class: "log", tabindex: 0, role: "log", "aria-label": "Log lines", "aria-live": "off" });
    const status = h("p", { class: "list-status", role: "status" });
    const isShown = (/** @type {any} */ line) => LEVELS.indexOf(line.level) <= LEVELS.indexOf(least) && (wanted === "" || `${line.target} ${line.message}`.toLowerCase().includes(wanted));
    const draw = (/** @type {any[]} */ fresh) => {
        const isAtEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
        box.append(...fresh.filter(isShown).map(row));
        while (box.childElementCount > LINES_MAX) box.firstElementChild?.remove();
        if (isAtEnd) box.scrollTop = box.scrollHeight;
        status.textContent = box.childElementCount === 0 ? "Nothing logged that matches" : `${box.childElementCount} lines`;
    };
    const redraw = () => {
        replace(box);
        draw(lines);
        box.scrollTop = box.scrollHeight;
    };
    const pause = button("Pause", () => {
        isPaused = !isPaused;
        pause.textContent = isPaused ? "Go on" : "Pause";
    });
    view.head("Log", { lead: "The latest lines of this broker's log. How much it says is set by log in its settings." });
    view.show(h("div", { class: "toolbar" },
        h("div", { class: "search" }, icon("search"), h("input", { type: "search", "aria-label": "Lines with", placeholder: "Lines with…", oninput: (/** @type {any} */ event) => { wanted = event.target.value.toLowerCase(); redraw(); } })),
        h("select", { "aria-label": "Least level", onchange: (/** @type {any} */ event) => { least = event.target.value; redraw(); } },
            [["TRACE", "All levels"], ["INFO", "Info and above"], ["WARN", "Warnings and errors"], ["ERROR", "Errors"]].map(([value, label]) => h("option", { value }, label))),
        status, h("div", { class: "actions" }, pause)), box);
    view.poll(1_500, async () => {
        if (isPaused) return;
        const answer = await api.get("/warren/log", { after }, view.signal);
        const fresh = answer.lines;
        after = answer.last;
        if (fresh.length === 0) return;
        lines = lines.concat(fresh).slice(-LINES_MAX);
        draw(fresh);
    });
}

/** @param {any} line */
function row(line) {
    const at = new Date(line.at_unix_ms);
    return h("p", { class: `log-${line.level.toLowerCase()}` },
        h("time", { datetime: at.toISOString(), title: at.toISOString() }, at.toISOString().slice(11, 23)), " ",
        h("span", { class: "log-level" }, line.level.padEnd(5)), " ", h("span", { class: "log-target" }, line.target), " ", h("span", null, line.message));
}
