// What charts draw: the latest samples of each series, kept while the page is open, so that going elsewhere and back
// loses nothing.
// Bounds: SERIES_MAX, SAMPLES_MAX; the one used longest ago goes.
// @ts-check

const SERIES_MAX = 40;
const SAMPLES_MAX = 150;

/** @typedef {{ at: number, values: (number | null)[] }} Sample */

/** @type {Map<string, Sample[]>} */
const kept = new Map();

/** The samples under a name. @param {string} name @returns {Sample[]} */
export function samples(name) {
    const found = kept.get(name) ?? [];
    kept.delete(name);
    kept.set(name, found);
    for (const oldest of kept.keys()) {
        if (kept.size <= SERIES_MAX) break;
        kept.delete(oldest);
    }
    return found;
}

/** @param {string} name @param {(number | null | undefined)[]} values @param {number} [at] milliseconds since 1970 */
export function note(name, values, at = Date.now()) {
    const own = samples(name);
    own.push({ at, values: values.map((value) => (typeof value === "number" && Number.isFinite(value) ? value : null)) });
    if (own.length > SAMPLES_MAX) own.splice(0, own.length - SAMPLES_MAX);
    return own;
}

/** What was before the page was opened, from the broker's own memory. @param {string} name @param {Sample[]} before */
export function recall(name, before) {
    const own = samples(name);
    const first = own[0]?.at ?? Infinity;
    own.unshift(...before.filter((sample) => sample.at < first - 1_000));
    if (own.length > SAMPLES_MAX) own.splice(0, own.length - SAMPLES_MAX);
}

/** With the end of a session nobody else sees what it saw. */
export const forget = () => kept.clear();
