// Elements: building them, and bringing a page up to date without losing focus, selection or scroll.
//
// Whatever comes from a broker is hostile text. It gets into the page here only, as text nodes, attributes and
// properties; no function takes markup, and links lead nowhere but within the page or to a file of its own making.
// @ts-check

const SVG_NAMESPACE = "http://www.w3.org/2000/svg";
/** Handlers by element: one listener for each kind, so that an update exchanges what it calls. */
const handlers = new WeakMap();
/** Elements of the page by what stands in for them in a tree that is not yet on it. */
const standIns = new WeakMap();

/**
 * @typedef {Node | string | number | null | undefined | false | any[]} Child
 * @typedef {Record<string, any>} Props `onclick` and the like are functions, `style` an object, `dataset` an object.
 */

/** Makes an HTML element.
 * @param {string} tag @param {Props | null} [props] @param {...(Child | Child[])} children @returns {any} */
export function h(tag, props, ...children) {
    return fill(document.createElement(tag), props, children);
}

/** Makes an SVG element.
 * @param {string} tag @param {Props | null} [props] @param {...(Child | Child[])} children @returns {any} */
export function svg(tag, props, ...children) {
    return fill(document.createElementNS(SVG_NAMESPACE, tag), props, children);
}

/** @param {any} element @param {Props | null | undefined} props @param {any[]} children */
function fill(element, props, children) {
    for (const [name, value] of Object.entries(props ?? {})) {
        if (value === undefined || value === null || value === false) continue;
        if (typeof value === "function") listen(element, name.slice(2), value);
        else if (name === "style") for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
        else if (name === "dataset") Object.assign(element.dataset, value);
        else if (name === "value") element.value = value;
        else if (name === "href") element.setAttribute("href", safeLink(value));
        else if (name.startsWith("on") || name === "srcdoc") throw new Error(`${name} is not set from text`);
        else element.setAttribute(name, value === true ? "" : String(value));
    }
    append(element, children);
    return element;
}

/** Only places in this page, and files that it made or the server has. @param {string} href */
function safeLink(href) {
    if (/^(#|blob:|payloads\/|page\/)/.test(href)) return href;
    throw new Error(`a link to ${href}`);
}

/** @param {any} element @param {any[]} children */
function append(element, children) {
    for (const child of children.flat(Infinity)) {
        if (child === null || child === undefined || child === false) continue;
        element.append(child instanceof Node ? unmoved(child) : String(child));
    }
}

/**
 * What looks after itself and is on the page already is not taken out of it to be put back: that would lose its focus.
 * Something stands in for it until the update finds it where it is. @param {Node} child
 */
function unmoved(child) {
    if (!(child instanceof HTMLElement) || child.dataset.own === undefined || !child.isConnected) return child;
    const standIn = document.createElement("template");
    standIns.set(standIn, child);
    return standIn;
}

/** Puts what was stood in for into a tree that is new. @param {any} tree */
function settle(tree) {
    for (const standIn of tree.querySelectorAll?.("template") ?? []) {
        const child = standIns.get(standIn);
        if (child) standIn.replaceWith(child);
    }
}

/** @param {any} element @param {string} kind @param {Function} handler */
function listen(element, kind, handler) {
    let own = handlers.get(element);
    if (!own) handlers.set(element, (own = {}));
    if (!own[kind]) element.addEventListener(kind, (/** @type {Event} */ event) => handlers.get(element)?.[kind]?.(event));
    own[kind] = handler;
}

/** Puts new children in the place of the old. @param {Element} parent @param {...(Child | Child[])} children */
export function replace(parent, ...children) {
    parent.replaceChildren();
    append(parent, children);
    settle(parent);
}

/**
 * Makes `parent` hold these children by changing what is there as little as possible. Children with `data-key` are
 * told by it; an element with `data-own` looks after itself and stays as it is while its key stays.
 * @param {Element} parent @param {...(Child | Child[])} children
 */
export function update(parent, ...children) {
    const fresh = document.createDocumentFragment();
    append(fresh, children);
    patchChildren(parent, fresh);
}

/** @param {Node} old @param {Node} fresh */
function patchChildren(old, fresh) {
    const keyed = new Map();
    for (const child of old.childNodes) {
        const key = keyOf(child);
        if (key !== undefined) keyed.set(key, child);
    }
    const fresher = [...fresh.childNodes].map((child) => standIns.get(child) ?? child);
    const wanted = new Set(fresher.map(keyOf));
    let place = /** @type {any} */ (old.firstChild);
    for (const child of fresher) {
        const key = keyOf(child);
        const same = child.parentNode === old ? child : key !== undefined ? keyed.get(key) : keyOf(place) === undefined ? place : null;
        if (!same || !isAlike(same, child)) {
            settle(child);
            old.insertBefore(child, place);
            continue;
        }
        // What is gone makes room, so that what stays need not move.
        while (key !== undefined && place && place !== same && !(keyOf(place) !== undefined && wanted.has(keyOf(place)))) place = removed(place);
        if (same === place) place = place.nextSibling;
        else old.insertBefore(same, place);
        patch(same, child);
    }
    while (place) place = removed(place);
}

/** Takes a node away and gives the one behind it. @param {any} node */
function removed(node) {
    const next = node.nextSibling;
    node.remove();
    return next;
}

/** @param {any} node */
const keyOf = (node) => node?.dataset?.key;

/** @param {any} one @param {any} other */
const isAlike = (one, other) => one.nodeType === other.nodeType && one.nodeName === other.nodeName;

/** @param {any} old @param {any} fresh */
function patch(old, fresh) {
    if (old.nodeType === Node.TEXT_NODE) {
        if (old.data !== fresh.data) old.data = fresh.data;
        return;
    }
    if (old === fresh || old.dataset?.own !== undefined) return;
    for (const { name } of [...old.attributes]) {
        // What is open or being written is the user's.
        if (!fresh.hasAttribute(name) && !(name === "open" && old.nodeName === "DETAILS")) old.removeAttribute(name);
    }
    for (const { name, value } of fresh.attributes) {
        if (old.getAttribute(name) === value) continue;
        if (name === "style") old.style.cssText = fresh.style.cssText;
        else old.setAttribute(name, value);
    }
    for (const [kind, handler] of Object.entries(handlers.get(fresh) ?? {})) listen(old, kind, handler);
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(old.nodeName)) return;
    patchChildren(old, fresh);
}
