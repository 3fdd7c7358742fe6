// Which address shows which page. Addresses are #/queues/VHOST/NAME?page=2, so that they can be kept and shared,
// and going back leads to the same list with the same filter.
// @ts-check

/** @typedef {{ path: string, params: Record<string, string>, query: URLSearchParams }} Place */

/** Path patterns, and the module whose default export shows the page. */
const ROUTES = /** @type {[string, () => Promise<any>][]} */ ([
    ["/", () => import("./overview.js")],
    ["/queues", () => import("./queues.js")],
    ["/queues/:vhost/:name", () => import("./queue.js")],
    ["/exchanges", () => import("./exchanges.js")],
    ["/exchanges/:vhost/:name", () => import("./exchange.js")],
    ["/connections", () => import("./connections.js")],
    ["/connections/:name", () => import("./connection.js")],
    ["/channels", () => import("./channels.js")],
    ["/channels/:name", () => import("./channel.js")],
    ["/swarms", () => import("./swarms.js")],
    ["/swarms/:id", () => import("./swarm.js")],
    ["/nodes", () => import("./nodes.js")],
    ["/nodes/:vhost/:name", () => import("./node.js")],
    ["/files", () => import("./files.js")],
    ["/files/:vhost/:id", () => import("./file.js")],
    ["/payloads", () => import("./payloads.js")],
    ["/users", () => import("./users.js")],
    ["/users/:name", () => import("./user.js")],
    ["/vhosts", () => import("./vhosts.js")],
    ["/vhosts/:name", () => import("./vhost.js")],
    ["/policies", () => import("./policies.js")],
    ["/limits", () => import("./limits.js")],
    ["/definitions", () => import("./definitions.js")],
    ["/log", () => import("./log.js")],
]);

/** @param {...(string | number)} names each becomes one part of the address */
export const link = (...names) => `#/${names.map((name) => encodeURIComponent(name)).join("/")}`;

/** Where the reader is. @returns {Place & { load: (() => Promise<any>) | null }} */
export function here() {
    const [path, query = ""] = splitOnce(location.hash.replace(/^#/, "") || "/", "?");
    for (const [pattern, load] of ROUTES) {
        const params = match(pattern, path);
        if (params) return { path, params, query: new URLSearchParams(query), load };
    }
    return { path, params: {}, query: new URLSearchParams(query), load: null };
}

/** Changes the address's query without a new entry in the history. @param {Record<string, string | number | boolean | null>} changes */
export function setQuery(changes) {
    const { path, query } = here();
    for (const [key, value] of Object.entries(changes)) {
        if (value === null || value === "" || value === false) query.delete(key);
        else query.set(key, String(value));
    }
    const text = query.toString();
    history.replaceState(null, "", `#${path}${text ? `?${text}` : ""}`);
}

/** @param {string} href */
export function go(href) {
    location.hash = href.replace(/^#/, "");
}

/** @param {string} pattern @param {string} path @returns {Record<string, string> | null} */
function match(pattern, path) {
    const wanted = pattern.split("/"), given = path.split("/");
    if (wanted.length !== given.length) return null;
    /** @type {Record<string, string>} */
    const params = {};
    for (const [index, part] of wanted.entries()) {
        try {
            if (part.startsWith(":")) params[part.slice(1)] = decodeURIComponent(given[index]);
            else if (part !== given[index]) return null;
        } catch {
            return null;
        }
    }
    return params;
}

/** @param {string} text @param {string} mark @returns {string[]} */
function splitOnce(text, mark) {
    const place = text.indexOf(mark);
    return place < 0 ? [text] : [text.slice(0, place), text.slice(place + 1)];
}
