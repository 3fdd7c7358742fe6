// The frame around every page: navigation, theme, who is signed in; and what a page is given to work with.
// @ts-check
import * as api from "./api.js";
import { h, replace, update } from "./dom.js";
import { icon, mark } from "./icons.js";
import { here } from "./router.js";
import { badge, empty, problem } from "./ui.js";

/** @typedef {import("./dom.js").Child} Child */
/** Title, address, pictogram, and the tag that it takes to see it. */
const NAVIGATION = /** @type {[string, [string, string, string, Parameters<typeof api.may>[0]][]][]} */ ([
    ["", [["Overview", "#/", "overview", "management"]]],
    ["Messaging", [
        ["Queues", "#/queues", "queues", "management"], ["Exchanges", "#/exchanges", "exchanges", "management"],
        ["Connections", "#/connections", "connections", "management"], ["Channels", "#/channels", "channels", "management"],
    ]],
    ["Distribution", [
        ["Swarms", "#/swarms", "swarms", "monitoring"], ["Files", "#/files", "files", "monitoring"], ["Nodes", "#/nodes", "nodes", "monitoring"], ["Payloads", "#/payloads", "payloads", "monitoring"],
    ]],
    ["Administration", [
        ["Users", "#/users", "users", "administrator"], ["Virtual hosts", "#/vhosts", "vhosts", "management"], ["Policies", "#/policies", "policies", "management"],
        ["Limits", "#/limits", "limits", "management"], ["Definitions", "#/definitions", "definitions", "administrator"], ["Log", "#/log", "log", "monitoring"],
    ]],
]);

/** One page on the screen: its place, and what ends when the reader leaves. */
export class View {
    #leaving = new AbortController();
    #problems = h("div", { class: "problems" });
    #head = h("header", { class: "page-head" });
    #body = h("div", { class: "page-body" });

    /** @param {Element} place @param {import("./router.js").Place} at */
    constructor(place, at) {
        this.params = at.params;
        this.query = at.query;
        /** Aborted when the reader leaves. */
        this.signal = this.#leaving.signal;
        replace(place, this.#head, this.#problems, this.#body);
    }

    /** @param {string} title @param {{ kind?: string, lead?: Child | Child[], actions?: Child | Child[], back?: [string, string] }} [options] */
    head(title, { kind = "", lead, actions, back } = {}) {
        document.title = `${title}${kind ? ` · ${kind}` : ""} · Warren`;
        update(this.#head, back && h("a", { class: "back", href: back[1] }, `← ${back[0]}`),
            h("div", { class: "page-title" }, h("h1", { tabindex: -1 }, title), kind && h("span", { class: "kind" }, kind), actions && h("div", { class: "actions" }, actions)),
            lead && h("p", { class: "lead" }, lead));
    }

    /** Puts the page's content in place, changing only what is different. @param {...(Child | Child[])} children */
    show(...children) {
        update(this.#body, children);
    }

    /** @param {unknown} error @param {() => void} [retry] */
    fail(error, retry) {
        if (this.signal.aborted) return;
        replace(this.#problems, problem(error, retry));
    }

    /** Does something now and again and again while the page is looked at. @param {number} everyMs @param {() => Promise<any>} work @returns {() => Promise<void>} does it at once */
    poll(everyMs, work) {
        let timer = 0, failed = false;
        const run = async () => {
            clearTimeout(timer);
            if (this.signal.aborted) return;
            if (!document.hidden) {
                try {
                    await work();
                    if (failed) replace(this.#problems);
                    failed = false;
                } catch (error) {
                    if (this.signal.aborted) return;
                    failed = true;
                    this.fail(error, run);
                    // What is gone does not come back by asking.
                    if (error instanceof api.ApiError && [401, 403, 404].includes(error.status)) return;
                }
            }
            clearTimeout(timer);
            if (!this.signal.aborted) timer = setTimeout(run, everyMs);
        };
        this.signal.addEventListener("abort", () => clearTimeout(timer));
        document.addEventListener("visibilitychange", () => { if (!document.hidden) run(); }, { signal: this.signal });
        queueMicrotask(run);
        return run;
    }

    leave() {
        this.#leaving.abort();
    }
}

/** Builds the frame and shows the page of the address. */
export function openShell() {
    const main = h("main", { id: "main", class: "main" });
    const navigation = h("div", { id: "navigation", class: "pages" });
    const cluster = h("span", { class: "cluster" });
    const menu = h("button", {
        type: "button", class: "button quiet menu", "aria-expanded": "false", "aria-controls": "navigation", "aria-label": "Menu",
        onclick: () => menu.setAttribute("aria-expanded", String(document.body.classList.toggle("menu-open"))),
    }, icon("menu"));
    replace(document.body,
        h("a", { class: "skip", href: "#main", onclick: (/** @type {Event} */ event) => { event.preventDefault(); focusTitle(); } }, "Skip to the content"),
        h("div", { class: "shell" },
            h("nav", { class: "side", "aria-label": "Pages" }, h("div", { class: "side-head" }, h("a", { class: "brand", href: "#/" }, mark(), h("span", null, "Warren")), menu), navigation),
            h("div", { class: "content" },
                h("header", { class: "top" }, cluster, h("p", { class: "offline", role: "status" }, h("span", null, "The broker does not answer; trying again…")),
                    h("div", { class: "top-end" }, themeSwitch(), account())),
                main)),
        h("div", { id: "said", "aria-live": "polite", class: "toasts" }));

    const ending = new AbortController();
    /** @type {View | null} */
    let view = null;
    const show = async (/** @type {boolean} */ isFirst) => {
        const place = here();
        view?.leave();
        document.body.classList.remove("menu-open");
        menu.setAttribute("aria-expanded", "false");
        showNavigation(navigation, place.path);
        const mine = (view = new View(main, place));
        if (!place.load) {
            mine.head("Not found");
            mine.show(empty("There is no such page", "Choose one from the menu, or go to the ", h("a", { href: "#/" }, "overview"), "."));
            return;
        }
        try {
            const page = await place.load();
            if (mine.signal.aborted) return;
            page.default(mine);
        } catch (error) {
            mine.fail(error, () => show(false));
        }
        scrollTo(0, 0);
        if (!isFirst) focusTitle();
    };
    addEventListener("hashchange", () => show(false), { signal: ending.signal });
    show(true);
    api.get("/overview", { columns: "cluster_name,product_version" }).then((overview) => {
        replace(cluster, overview.cluster_name);
        cluster.title = `Warren ${overview.product_version}`;
    }, () => {});
    return {
        close: () => {
            view?.leave();
            ending.abort();
        },
    };
}

const focusTitle = () => /** @type {HTMLElement | null} */ (document.querySelector("h1"))?.focus();

/** @param {Element} place @param {string} path */
function showNavigation(place, path) {
    const groups = NAVIGATION.map(([title, pages]) => {
        const links = pages.filter(([, , , tag]) => api.may(tag)).map(([name, href, picture]) => {
            const own = href.slice(1);
            const isHere = own === "/" ? path === "/" : path === own || path.startsWith(`${own}/`);
            return h("li", null, h("a", { href, "aria-current": isHere ? "page" : undefined }, icon(picture), h("span", null, name)));
        });
        return links.length > 0 && h("div", { class: "nav-group" }, title && h("p", { class: "nav-title" }, title), h("ul", null, links));
    });
    update(place, groups);
}

function account() {
    const session = api.who();
    return h("div", { class: "account" }, h("span", { class: "user" }, session?.name), badge(session?.tags[0] || "no tag"),
        h("button", { type: "button", class: "button quiet", onclick: () => api.signOut("You are signed out."), "aria-label": "Sign out", title: "Sign out" }, icon("signout")));
}

/** System, light, dark, and round again. */
function themeSwitch() {
    const root = document.documentElement;
    const order = /** @type {[string, string, string][]} */ ([["", "system", "as the system"], ["light", "sun", "light"], ["dark", "moon", "dark"]]);
    const current = () => Math.max(0, order.findIndex(([name]) => name === (root.dataset.theme ?? "")));
    const button = h("button", {
        type: "button", class: "button quiet",
        onclick: () => {
            const [name] = order[(current() + 1) % order.length];
            if (name) root.dataset.theme = name;
            else delete root.dataset.theme;
            localStorage.setItem("warren-theme", name);
            paint();
        },
    });
    const paint = () => {
        const [, picture, words] = order[current()];
        replace(button, icon(picture));
        button.setAttribute("aria-label", `Colours: ${words}. Change`);
        button.title = `Colours: ${words}`;
    };
    paint();
    return button;
}
