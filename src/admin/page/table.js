// Lists that the broker pages, sorts and filters: whatever is there, one page of it comes here.
// What is chosen stands in the address, so that a reload and the way back show the same.
// @ts-check
import * as api from "./api.js";
import { h, replace, update } from "./dom.js";
import { clock, count } from "./format.js";
import { icon } from "./icons.js";
import { setQuery } from "./router.js";
import { empty, problem } from "./ui.js";

/**
 * @typedef {{ label: string, cell: (row: any) => (import("./dom.js").Child | import("./dom.js").Child[]), sort?: string, number?: boolean, head?: boolean, wide?: boolean, hidden?: boolean }} Column
 * `sort` is the field that the broker sorts by; `head` is what names the row; `wide` columns leave first.
 * @typedef {{ name: string, path: string, columns: Column[], key: (row: any) => string, nothing: import("./dom.js").Child | (() => import("./dom.js").Child), fields?: string[], vhosts?: boolean,
 *   sort?: string, reverse?: boolean, intervalMs?: number, search?: boolean, query?: Record<string, string>, pathIn?: (vhost: string) => string, actions?: import("./dom.js").Child[] }} Options
 * `pathIn` is the path of the same list in one vhost.
 */

const PAGE_SIZES = [25, 50, 100, 250, 500];

/** Shows a list and keeps it up to date. @param {import("./shell.js").View} view @param {Options} options */
export function list(view, options) {
    const query = view.query;
    const state = {
        page: Number(query.get("page")) || 1,
        size: Number(query.get("size")) || 50,
        sort: query.get("sort") ?? options.sort ?? "",
        reverse: query.has("sort") ? query.get("reverse") === "true" : options.reverse ?? false,
        name: query.get("name") ?? "",
        regex: query.get("regex") === "true",
        vhost: query.get("vhost") ?? "",
    };
    const body = h("div", { class: "list-body" });
    const status = h("p", { class: "list-status", role: "status" });
    let turn = 0;

    const load = async () => {
        const mine = (turn += 1);
        const path = state.vhost !== "" && options.pathIn ? options.pathIn(state.vhost) : options.path;
        let answer;
        try {
            answer = await api.get(path, {
                page: state.page, page_size: state.size, sort: state.sort, sort_reverse: state.sort !== "" && state.reverse,
                name: state.name, use_regex: state.name !== "" && state.regex, columns: options.fields?.join(","), ...options.query,
            }, view.signal);
        } catch (error) {
            if (error instanceof api.ApiError && error.status === 400 && state.page > 1) return choose({ page: 1 });
            if (error instanceof api.ApiError && error.status === 400 && state.regex) {
                status.textContent = `“${state.name}” is no regular expression: ${error.message}`;
                return;
            }
            throw error;
        }
        if (mine !== turn) return;
        show(answer);
    };
    const refresh = view.poll(options.intervalMs ?? 5_000, load);

    /** @param {Partial<typeof state>} change */
    const choose = (change) => {
        Object.assign(state, "page" in change ? {} : { page: 1 }, change);
        setQuery({
            page: state.page > 1 ? state.page : null, size: state.size === 50 ? null : state.size, name: state.name, regex: state.regex, vhost: state.vhost,
            sort: state.sort === (options.sort ?? "") && state.reverse === (options.reverse ?? false) ? null : state.sort || null,
            reverse: state.sort === (options.sort ?? "") && state.reverse === (options.reverse ?? false) ? null : state.reverse,
        });
        return refresh();
    };

    /** @param {any} answer */
    const show = (answer) => {
        const rows = answer.items;
        const said = answer.filtered_count === answer.total_count
            ? `${count(answer.total_count)} in all`
            : `${count(answer.filtered_count)} of ${count(answer.total_count)} match`;
        status.textContent = said;
        status.title = `as of ${clock(Date.now())}`;
        if (rows.length === 0) {
            const nothing = state.name !== "" || state.vhost !== "" ? empty("Nothing matches", "Change the filter, or ", h("button", { class: "link", type: "button", onclick: clear }, "show everything"), ".")
                : typeof options.nothing === "function" ? options.nothing() : options.nothing;
            update(body, nothing);
            return;
        }
        update(body, table(options.name, options.columns, rows, options.key, { state, choose }), pager(answer, choose));
    };
    const clear = () => {
        search.value = "";
        if (vhost) vhost.value = "";
        choose({ name: "", vhost: "" });
    };

    let typing = 0;
    const search = h("input", {
        type: "search", "aria-label": `Filter ${options.name.toLowerCase()} by name`, placeholder: "Filter by name", value: state.name, spellcheck: "false", autocomplete: "off",
        oninput: () => {
            clearTimeout(typing);
            typing = setTimeout(() => choose({ name: search.value }), 250);
        },
    });
    const regex = h("label", { class: "toggle", title: "Read the filter as a regular expression" },
        h("input", { type: "checkbox", checked: state.regex, onchange: (/** @type {any} */ event) => choose({ regex: event.target.checked }) }), h("span", null, "Regex"));
    const size = h("select", { "aria-label": "Rows per page", onchange: (/** @type {any} */ event) => choose({ size: Number(event.target.value) }) },
        PAGE_SIZES.map((one) => h("option", { value: one, selected: one === state.size }, `${one} rows`)));
    const vhost = options.pathIn ? h("select", { "aria-label": "Virtual host", onchange: (/** @type {any} */ event) => choose({ vhost: event.target.value }) }, h("option", { value: "" }, "All virtual hosts")) : null;
    if (vhost) {
        vhostNames(view).then((names) => {
            if (state.vhost !== "" && !names.includes(state.vhost)) names.push(state.vhost);
            vhost.append(...names.map((name) => h("option", { value: name, selected: name === state.vhost }, name)));
            vhost.hidden = names.length < 2;
        }, () => {});
    }
    return h("div", { class: "list" },
        h("div", { class: "toolbar" },
            options.search === false ? null : h("div", { class: "search" }, icon("search"), search), options.search === false ? null : regex, vhost, size, status,
            options.actions && h("div", { class: "actions" }, options.actions)),
        body);
}

/** Names of virtual hosts to choose from; a page of them is enough for that. @param {import("./shell.js").View} view @returns {Promise<string[]>} */
export async function vhostNames(view) {
    const { items } = await api.get("/vhosts", { columns: "name", page: 1, page_size: 500, sort: "name" }, view.signal);
    return items.map((/** @type {any} */ vhost) => vhost.name);
}

/**
 * A table of rows that are here.
 * @param {string} name @param {Column[]} columns @param {any[]} rows @param {(row: any) => string} key
 * @param {{ state: { sort: string, reverse: boolean }, choose: (change: any) => any }} [sorting]
 */
export function table(name, columns, rows, key, sorting) {
    const shown = columns.filter((column) => !column.hidden);
    const heads = shown.map((column) => {
        const className = `${column.number ? "number" : ""} ${column.wide ? "wide-only" : ""}`;
        if (!column.sort || !sorting) return h("th", { scope: "col", class: className }, column.label || h("span", { class: "unseen" }, "Actions"));
        const { state, choose } = sorting;
        const isSorted = state.sort === column.sort;
        const sort = isSorted ? (state.reverse ? "descending" : "ascending") : "none";
        return h("th", { scope: "col", class: className, "aria-sort": sort },
            h("button", { type: "button", class: "sort", onclick: () => choose({ sort: column.sort, reverse: isSorted ? !state.reverse : column.number === true }) },
                column.label, h("span", { class: "sort-mark", "aria-hidden": "true" }, isSorted ? (state.reverse ? "↓" : "↑") : "")));
    });
    const lines = rows.map((row) => h("tr", { dataset: { key: key(row) } }, shown.map((column) => {
        const content = column.cell(row);
        // What is nothing stands back.
        const isZero = column.number && typeof content === "string" && /^(0|0\/s|0 B|–)$/.test(content);
        const className = `${column.number ? "number" : ""} ${column.wide ? "wide-only" : ""} ${isZero ? "zero" : ""}`;
        return h(column.head ? "th" : "td", { class: className, scope: column.head ? "row" : undefined }, content);
    })));
    return h("div", { class: "table-box", tabindex: 0, role: "group", "aria-label": name, dataset: { key: `table ${name}` } },
        h("table", null, h("thead", null, h("tr", null, heads)), h("tbody", null, lines)));
}

/** @param {any} answer @param {(change: any) => any} choose */
function pager(answer, choose) {
    const { page, page_count: pages } = answer;
    if (pages <= 1) return null;
    const turn = (/** @type {string} */ label, /** @type {number} */ to, /** @type {string} */ spoken) =>
        h("button", { type: "button", class: "button", disabled: to < 1 || to > pages || to === page, onclick: () => choose({ page: to }), "aria-label": spoken }, label);
    return h("nav", { class: "pager", "aria-label": "Pages of the list", dataset: { key: "pager" } },
        turn("«", 1, "First page"), turn("‹", page - 1, "Page before"), h("span", null, `Page ${count(page)} of ${count(pages)}`), turn("›", page + 1, "Next page"), turn("»", pages, "Last page"));
}

/** A list that comes whole because it is short, in a section of a page. @param {Element} place @param {unknown} error */
export const showProblem = (place, error) => replace(place, problem(error));
