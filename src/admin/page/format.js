// Numbers, sizes, times: one way to write each, everywhere.
// @ts-check

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

/** 12,345 @param {unknown} value */
export const count = (value) => (isNumber(value) ? whole.format(value) : "–");

/** 12.3K @param {unknown} value */
export const compact = (value) => (isNumber(value) ? (Math.abs(value) < 10_000 ? whole.format(value) : short.format(value)) : "–");

/** Events per second. @param {unknown} value */
export function rate(value) {
    if (!isNumber(value)) return "–";
    if (value !== 0 && Math.abs(value) < 10) return `${value.toFixed(1)}/s`;
    return `${compact(value)}/s`;
}

/** 1.5 MiB @param {unknown} value */
export function bytes(value) {
    if (!isNumber(value)) return "–";
    const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let size = value, unit = 0;
    while (Math.abs(size) >= 1024 && unit < units.length - 1) {
        size /= 1024;
        unit += 1;
    }
    return `${unit === 0 || size >= 100 ? Math.round(size) : size.toFixed(1)} ${units[unit]}`;
}

/** 1.5 MiB/s @param {unknown} value */
export const byteRate = (value) => (isNumber(value) ? `${bytes(value)}/s` : "–");

/** 12 % @param {unknown} share from 0 to 1 */
export const percent = (share) => (isNumber(share) ? `${share >= 0.9995 ? 100 : share < 0.1 ? (share * 100).toFixed(1) : Math.min(99.9, share * 100).toFixed(0)} %` : "–");

/** 3 d 4 h @param {unknown} milliseconds */
export function duration(milliseconds) {
    if (!isNumber(milliseconds)) return "–";
    const seconds = Math.max(0, Math.round(milliseconds / 1000));
    const steps = /** @type {[number, string][]} */ ([[86_400, "d"], [3_600, "h"], [60, "min"], [1, "s"]]);
    const first = steps.findIndex(([length]) => seconds >= length);
    if (first < 0) return "0 s";
    const [length, name] = steps[first];
    const rest = Math.floor((seconds % length) / (steps[first + 1]?.[0] ?? 1));
    const head = `${Math.floor(seconds / length)} ${name}`;
    return rest > 0 && steps[first + 1] ? `${head} ${rest} ${steps[first + 1][1]}` : head;
}

/** A point in time, in the reader's zone. @param {unknown} milliseconds since 1970 */
export function time(milliseconds) {
    if (!isNumber(milliseconds)) return "–";
    const at = new Date(milliseconds);
    const isToday = at.toDateString() === new Date().toDateString();
    return isToday ? clock(milliseconds) : `${at.toLocaleDateString("en-CA")} ${clock(milliseconds)}`;
}

/** 14:03:09 @param {number} milliseconds since 1970 */
export const clock = (milliseconds) => new Date(milliseconds).toLocaleTimeString("en-GB");

/** @param {unknown} milliseconds */
export const ago = (milliseconds) => (isNumber(milliseconds) ? (milliseconds < 2_000 ? "just now" : `${duration(milliseconds)} ago`) : "–");

/** One name for what has none. @param {string} name */
export const exchangeName = (name) => (name === "" ? "(default)" : name);

/** How a word goes with a number. @param {number} number @param {string} one @param {string} [many] */
export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

/** @param {unknown} value @returns {value is number} */
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
