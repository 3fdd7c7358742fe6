// Line charts over time. The legend beside a chart says the latest values in words, so nothing is in the picture alone.
// @ts-check
import { h, replace, svg } from "./dom.js";
import { clock } from "./format.js";

/** @typedef {import("./history.js").Sample} Sample */

const HEIGHT = 168;
const EDGE = { top: 10, right: 8, bottom: 22, left: 76 };
/** A hole in time longer than this is drawn as one, in milliseconds. */
const HOLE_MS = 25_000;
/** The span of a chart that has just begun, in milliseconds. */
const YOUNG_MS = 60_000;

/**
 * @param {{ title: string, series: string[], format: (value: number) => string, spanMs?: number, least?: number, limit?: () => number | null, size?: "bytes" | "count" }} options
 * `least` is the smallest top of the scale, `size` decides which steps look round.
 */
export function chart({ title, series, format, spanMs = 600_000, least = 1, limit, size = "count" }) {
    const picture = svg("svg", { role: "img", height: HEIGHT });
    const legend = h("ul", { class: "legend" });
    const tip = h("div", { class: "chart-tip", hidden: true });
    const stage = h("div", { class: "chart-stage" }, picture, tip);
    const element = h("figure", { class: "chart", dataset: { own: "", key: title } },
        h("figcaption", null, h("span", { class: "chart-title" }, title), legend), stage);
    /** @type {Sample[]} */
    let samples = [];
    let width = 0;
    /** @type {{ x: (at: number) => number } | null} */
    let scale = null;

    const draw = () => {
        if (width < 80) return;
        const end = samples.at(-1)?.at ?? Date.now();
        // A young chart shows what it has, wide, and grows into its span.
        const shownMs = Math.min(spanMs, Math.max(YOUNG_MS, (end - (samples[0]?.at ?? end)) * 1.05));
        const begin = end - shownMs;
        const shown = samples.filter((sample) => sample.at >= begin);
        const bound = limit?.() ?? null;
        const most = Math.max(least, ...shown.flatMap((sample) => sample.values.map((value) => value ?? 0)));
        const { top, step } = roundScale(most, size);
        const x = (/** @type {number} */ at) => EDGE.left + ((at - begin) / shownMs) * (width - EDGE.left - EDGE.right);
        const y = (/** @type {number} */ value) => HEIGHT - EDGE.bottom - (value / top) * (HEIGHT - EDGE.top - EDGE.bottom);
        scale = { x };
        picture.setAttribute("width", String(width));
        picture.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
        const lines = [];
        for (let value = 0; value <= top * 1.001; value += step) {
            lines.push(svg("line", { class: value === 0 ? "axis" : "grid", x1: EDGE.left, x2: width - EDGE.right, y1: y(value), y2: y(value) }),
                svg("text", { x: EDGE.left - 8, y: y(value) + 4, "text-anchor": "end" }, format(value)));
        }
        const times = Math.max(2, Math.min(5, Math.floor(width / 150)));
        for (let index = 0; index <= times; index += 1) {
            const at = begin + (shownMs * index) / times;
            const anchor = index === 0 ? "start" : index === times ? "end" : "middle";
            lines.push(svg("text", { x: x(at), y: HEIGHT - 5, "text-anchor": anchor }, shownMs > 300_000 ? clock(at).slice(0, 5) : clock(at)));
        }
        if (bound !== null && bound <= top) lines.push(svg("line", { class: "bound", x1: EDGE.left, x2: width - EDGE.right, y1: y(bound), y2: y(bound) }));
        const paths = series.map((_, index) => {
            const line = path(shown, index, x, y);
            const first = shown[0];
            const area = line && series.length === 1 && first ? `${line}L${x(end).toFixed(1)} ${y(0)}L${x(first.at).toFixed(1)} ${y(0)}Z` : "";
            return [area && svg("path", { class: `area s${index + 1}`, d: area }), svg("path", { class: `line s${index + 1}`, d: line })];
        }).flat().reverse();
        const wait = shown.length < 2 ? svg("text", { class: "wait", x: (width + EDGE.left) / 2, y: HEIGHT / 2, "text-anchor": "middle" }, "Collecting…") : null;
        replace(picture, lines, paths, wait, svg("line", { class: "cursor", y1: EDGE.top, y2: HEIGHT - EDGE.bottom, visibility: "hidden" }));
        const last = samples.at(-1);
        const said = series.map((name, index) => [name, last?.values[index] === null || last === undefined ? "–" : format(last.values[index] ?? 0)]);
        replace(legend, said.map(([name, value], index) => h("li", { class: `s${index + 1}` }, h("span", null, name), " ", h("strong", null, value))));
        picture.setAttribute("aria-label", `${title}, now: ${said.map(([name, value]) => `${name} ${value}`).join(", ")}`);
    };
    stage.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
        if (!scale || samples.length === 0) return;
        const x = event.clientX - stage.getBoundingClientRect().left;
        const nearest = samples.reduce((best, sample) => (scale && Math.abs(scale.x(sample.at) - x) < Math.abs(scale.x(best.at) - x) ? sample : best));
        const place = scale.x(nearest.at);
        const cursor = picture.querySelector(".cursor");
        if (place < EDGE.left || !cursor) return;
        for (const name of ["x1", "x2"]) cursor.setAttribute(name, String(place));
        cursor.setAttribute("visibility", "visible");
        replace(tip, h("p", null, clock(nearest.at)), series.map((name, index) =>
            h("p", { class: `s${index + 1}` }, h("span", null, name), " ", h("strong", null, nearest.values[index] === null ? "–" : format(nearest.values[index] ?? 0)))));
        tip.hidden = false;
        tip.style.left = `${Math.min(place + 12, width - tip.offsetWidth - 4)}px`;
    });
    stage.addEventListener("pointerleave", () => {
        tip.hidden = true;
        picture.querySelector(".cursor")?.setAttribute("visibility", "hidden");
    });
    new ResizeObserver(([entry]) => {
        width = Math.floor(entry.contentRect.width);
        draw();
    }).observe(stage);
    /** @param {Sample[]} fresh */
    const show = (fresh) => {
        samples = fresh;
        draw();
    };
    return { element, show };
}

/** @param {Sample[]} samples @param {number} index @param {(at: number) => number} x @param {(value: number) => number} y */
function path(samples, index, x, y) {
    let line = "", before = -Infinity;
    for (const { at, values } of samples) {
        const value = values[index];
        if (value === null || value === undefined) continue;
        // A sample that stands alone is a dot.
        line += at - before > HOLE_MS ? `M${x(at).toFixed(1)} ${y(value).toFixed(1)}h0` : `L${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
        before = at;
    }
    return line;
}

/** A scale's top and steps that are round numbers, of 2 or of 10. @param {number} most @param {"bytes" | "count"} size */
function roundScale(most, size) {
    const aim = most / 3;
    if (size === "bytes") {
        const step = 2 ** Math.ceil(Math.log2(Math.max(1, aim)));
        return { step, top: Math.ceil(most / step) * step };
    }
    const power = 10 ** Math.floor(Math.log10(aim));
    const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((one) => one >= aim) ?? power * 10;
    return { step, top: Math.ceil(most / step - 1e-9) * step };
}

/** A line without axes, for tables. @param {(number | null)[]} values @param {string} label */
export function spark(values, label) {
    const width = 96, height = 22, most = Math.max(1e-9, ...values.map((value) => value ?? 0));
    const points = values.map((value, index) => `${((index / Math.max(1, values.length - 1)) * width).toFixed(1)},${(height - 2 - ((value ?? 0) / most) * (height - 4)).toFixed(1)}`);
    return svg("svg", { class: "spark", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label },
        svg("polyline", { points: points.join(" ") }));
}
