// The management API, asked as the user who signed in.
//
// The credentials are those of HTTP basic authentication. They are kept in this tab's session storage, so that a reload
// does not ask again: it is gone with the tab, is not shared with other tabs and is not sent by the browser by itself,
// which leaves no way to forge requests from other sites. The page's security policy lets no foreign script run that
// could read it. After eight hours without use it is forgotten.
// @ts-check

const STORAGE_KEY = "warren-session";
const IDLE_MS_MAX = 8 * 3_600_000;
const WAIT_MS_MAX = 30_000;

/** @typedef {{ name: string, tags: string[], header: string, used: number }} Session */

/** @type {Session | null} */
let session = null;
/** @type {(reason: string) => void} */
let onSignedOut = () => {};
/** @type {(isReached: boolean) => void} */
let onReach = () => {};

/** What went wrong, and what to do about it. */
export class ApiError extends Error {
    /** @param {number} status 0 if there was no answer @param {string} message @param {string} advice */
    constructor(status, message, advice) {
        super(message);
        this.status = status;
        this.advice = advice;
    }
}

/** @param {{ signedOut: (reason: string) => void, reach: (isReached: boolean) => void }} listeners */
export function watchSession(listeners) {
    onSignedOut = listeners.signedOut;
    onReach = listeners.reach;
}

/** Who is signed in. */
export const who = () => session;

/** Whether the user has one of RabbitMQ's tags or a greater one. @param {"management" | "policymaker" | "monitoring" | "administrator"} tag */
export function may(tag) {
    const tags = session?.tags ?? [];
    return tags.includes("administrator") || tags.includes(tag) || (tag === "management" && tags.length > 0);
}

/** Takes up the session of a reload. */
export async function resume() {
    const kept = sessionStorage.getItem(STORAGE_KEY);
    if (!kept) return false;
    try {
        const { header, used } = JSON.parse(kept);
        if (Date.now() - used > IDLE_MS_MAX) throw new Error("too old");
        await begin(header);
        return true;
    } catch (error) {
        if (error instanceof ApiError && error.status === 0) throw error;
        sessionStorage.removeItem(STORAGE_KEY);
        return false;
    }
}

/** @param {string} user @param {string} password */
export async function signIn(user, password) {
    const octets = new TextEncoder().encode(`${user}:${password}`);
    await begin(`Basic ${btoa(Array.from(octets, (octet) => String.fromCharCode(octet)).join(""))}`);
}

/** Signs in with an access token of OAuth 2. @param {string} token */
export const signInWithToken = (token) => begin(`Bearer ${token}`);

/** @param {string} header */
async function begin(header) {
    session = { name: "", tags: [], header, used: Date.now() };
    try {
        const { name, tags } = await send("GET", "/whoami");
        session = { name, tags: Array.isArray(tags) ? tags : String(tags).split(","), header, used: Date.now() };
        keep();
    } catch (error) {
        session = null;
        throw error;
    }
}

/** @param {string} [reason] shown at the form */
export function signOut(reason = "") {
    session = null;
    sessionStorage.removeItem(STORAGE_KEY);
    onSignedOut(reason);
}

function keep() {
    if (session) sessionStorage.setItem(STORAGE_KEY, JSON.stringify({ header: session.header, used: session.used }));
}

/** Notes that somebody is there; polling does not count. */
export function touch() {
    if (session && Date.now() - session.used > 60_000) {
        session.used = Date.now();
        keep();
    }
}

/**
 * A path with names in it: at`/queues/${vhost}/${name}`. Browsers take the names `.` and `..` out of every path, even
 * encoded, and would ask for something else: so they are refused here.
 * @param {TemplateStringsArray} parts @param {...string} names
 */
export function at(parts, ...names) {
    return parts.reduce((path, part, index) => {
        const name = names[index - 1];
        if (name === "." || name === "..") {
            throw new ApiError(0, `A browser cannot ask for something named “${name}”.`, "Use warren ctl or an AMQP client for it.");
        }
        return path + encodeURIComponent(name) + part;
    });
}

/** @param {string} path @param {Record<string, any>} [query] @param {AbortSignal} [signal] */
export const get = (path, query, signal) => request("GET", path, { query, signal });
/** @param {string} path @param {any} [body] */
export const put = (path, body) => request("PUT", path, { body });
/** @param {string} path @param {any} [body] @param {AbortSignal} [signal] */
export const post = (path, body, signal) => request("POST", path, { body, signal });
/** @param {string} path @param {any} [body] @param {Record<string, string>} [headers] */
export const remove = (path, body, headers) => request("DELETE", path, { body, headers });

/**
 * @param {string} method @param {string} path
 * @param {{ query?: Record<string, any>, body?: any, signal?: AbortSignal, headers?: Record<string, string> }} [options]
 */
async function request(method, path, options = {}) {
    if (session && Date.now() - session.used > IDLE_MS_MAX) signOut("You were signed out after eight hours without use.");
    if (!session) throw new ApiError(401, "You are signed out.", "Sign in again.");
    return send(method, path, options);
}

/**
 * @param {string} method @param {string} path
 * @param {{ query?: Record<string, any>, body?: any, signal?: AbortSignal, headers?: Record<string, string> }} [options]
 * @returns {Promise<any>}
 */
async function send(method, path, { query = {}, body, signal, headers = {} } = {}) {
    const asked = Object.entries(query).filter(([, value]) => value !== undefined && value !== "" && value !== false);
    const search = new URLSearchParams(asked.map(([key, value]) => [key, String(value)])).toString();
    const timeout = AbortSignal.timeout(WAIT_MS_MAX);
    let response, text;
    try {
        response = await fetch(`api${path}${search ? `?${search}` : ""}`, {
            method,
            body: body === undefined ? undefined : JSON.stringify(body),
            headers: { ...headers, authorization: session?.header ?? "", ...(body === undefined ? {} : { "content-type": "application/json" }) },
            // The browser's own login window and its memory of passwords stay out of this.
            credentials: "omit",
            cache: "no-store",
            signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
        });
        text = await response.text();
    } catch (error) {
        if (signal?.aborted) throw error;
        onReach(false);
        const late = timeout.aborted ? ` within ${WAIT_MS_MAX / 1000} s` : "";
        throw new ApiError(0, `The broker does not answer${late}.`, "Check that it runs and that this machine reaches it; the page goes on by itself.");
    }
    onReach(true);
    if (response.ok) return text === "" ? null : JSON.parse(text);
    throw failure(response.status, text, method, path);
}

/** @param {number} status @param {string} text @param {string} method @param {string} path */
function failure(status, text, method, path) {
    let error = "", reason = "";
    try {
        ({ error = "", reason = "" } = JSON.parse(text));
    } catch {
        reason = text.slice(0, 500);
    }
    // RabbitMQ escapes what its texts quote, and so does the API; here they are text.
    reason = String(reason).replaceAll("&lt;", "<").replaceAll("&gt;", ">").trim();
    if (status === 401 && error !== "not_authorised" && session && session.name !== "") {
        signOut("The broker no longer accepts your login: the password has changed, or the user is gone.");
    }
    const advice = {
        400: "Correct what the message names and send it again.",
        401: error === "not_authorised" ? "Ask an administrator for the tag or the permission." : "Check the user name and the password.",
        403: "Ask an administrator for the permission.",
        404: "It may have been deleted, or its name has changed. Go back to the list.",
        405: "This version of the broker does not know this action.",
        413: "Send less at once.",
        429: "Wait a moment, then try again.",
        503: "The broker is stopping or overloaded: try again in a moment.",
    }[status] ?? "Look at the broker's log for the cause.";
    return new ApiError(status, reason || `${method} ${path} was answered with ${status}.`, advice);
}
