// Piece maps: which pieces a machine holds, drawn as a field that fills up. Colours are the page's; a map that has
// more pieces than the field has cells shows several in one, as full as they are.
// @ts-check
import { h } from "./dom.js";
import { count, percent } from "./format.js";

const CELL = 10;
const GAP = 2;
const ROWS_MAX = 12;

/** Whether each piece is held. @param {string | null} map base64, piece 0 the highest bit @param {number} pieces @returns {Uint8Array | null} */
export function held(map, pieces) {
    if (map === null || map === undefined) return null;
    const octets = decode(map);
    const out = new Uint8Array(pieces);
    for (let piece = 0; piece < pieces; piece += 1) out[piece] = ((octets[piece >> 3] ?? 0) >> (7 - (piece & 7))) & 1;
    return out;
}

/** Octets of base64. @param {string} text */
export const decode = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

/**
 * A map that is drawn again with `show`.
 * @param {string} label @param {{ most?: number }} [options] `most` is the value of a full cell: 1 for what one machine holds
 */
export function pieceMap(label, { most = 1 } = {}) {
    const canvas = /** @type {HTMLCanvasElement} */ (h("canvas", { class: "pieces", role: "img", "aria-label": label }));
    const element = h("div", { class: "pieces-box", dataset: { own: "", key: label } }, canvas);
    /** @type {Uint8Array | null} */
    let values = null;
    let full = most, width = 0;
    /** When each piece came, so that new ones light up for a moment. */
    let before = /** @type {Uint8Array | null} */ (null);

    const draw = () => {
        if (!values || width < 40) return;
        const columns = Math.max(1, Math.floor((width + GAP) / (CELL + GAP)));
        const cells = Math.min(values.length, columns * ROWS_MAX);
        const rows = Math.max(1, Math.ceil(cells / columns));
        const ratio = devicePixelRatio || 1;
        const height = rows * (CELL + GAP) - GAP;
        canvas.width = width * ratio;
        canvas.height = height * ratio;
        canvas.style.height = `${height}px`;
        const paint = canvas.getContext("2d");
        if (!paint) return;
        paint.scale(ratio, ratio);
        const style = getComputedStyle(element);
        const [none, some, fresh] = ["--cell-none", "--cell-held", "--cell-fresh"].map((name) => color(style, name));
        for (let cell = 0; cell < cells; cell += 1) {
            const first = Math.floor((cell * values.length) / cells), last = Math.max(first + 1, Math.floor(((cell + 1) * values.length) / cells));
            let sum = 0, isFresh = false;
            for (let piece = first; piece < last; piece += 1) {
                sum += Math.min(full, values[piece]);
                if (before && before.length === values.length && values[piece] > before[piece]) isFresh = true;
            }
            const share = sum / (full * (last - first));
            const x = (cell % columns) * (CELL + GAP), y = Math.floor(cell / columns) * (CELL + GAP);
            const box = () => { paint.beginPath(); paint.roundRect(x, y, CELL, CELL, 2); paint.fill(); };
            paint.globalAlpha = 1;
            paint.fillStyle = none;
            box();
            if (share > 0) {
                paint.globalAlpha = isFresh ? 1 : 0.25 + 0.75 * share;
                paint.fillStyle = isFresh ? fresh : some;
                box();
            }
        }
    };
    new ResizeObserver(([entry]) => {
        width = Math.floor(entry.contentRect.width);
        draw();
    }).observe(element);

    /** @param {Uint8Array | null} fresh @param {number} [most] */
    const show = (fresh, most) => {
        before = values;
        values = fresh;
        full = Math.max(1, most ?? full);
        canvas.hidden = fresh === null;
        if (!fresh) return;
        const whole = fresh.reduce((sum, value) => sum + (value > 0 ? 1 : 0), 0);
        canvas.setAttribute("aria-label", `${label}: ${count(whole)} of ${count(fresh.length)} pieces, ${percent(fresh.length === 0 ? 1 : whole / fresh.length)}`);
        canvas.dataset.held = String(whole);
        draw();
    };
    return { element, show };
}

/** A canvas understands no light-dark(): the browser resolves it on a property that is a colour. @param {CSSStyleDeclaration} style @param {string} name */
function color(style, name) {
    const probe = h("span", { hidden: true, style: { color: style.getPropertyValue(name) } });
    document.body.append(probe);
    const resolved = getComputedStyle(probe).color;
    probe.remove();
    return resolved;
}
