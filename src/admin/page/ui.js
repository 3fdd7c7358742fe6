// What pages are put together from: sections, badges, bars, notices, dialogs and forms.
// @ts-check
import { ApiError } from "./api.js";
import { h, replace } from "./dom.js";
import { icon } from "./icons.js";

/** @typedef {import("./dom.js").Child} Child */

/** A titled part of a page. @param {string} title @param {{ actions?: Child, note?: Child, key?: string }} options @param {...(Child | Child[])} children */
export function section(title, options, ...children) {
    return h("section", { class: "section", "aria-label": title, dataset: { key: options.key ?? title } },
        h("div", { class: "section-head" }, h("h2", null, title), options.note && h("p", { class: "note" }, options.note),
            options.actions && h("div", { class: "actions" }, options.actions)),
        children);
}

/** @param {Child} label @param {"neutral" | "good" | "warn" | "bad" | "accent"} [tone] @param {string} [hint] */
export const badge = (label, tone = "neutral", hint) => h("span", { class: `badge ${tone}`, title: hint }, label);

/** A figure with its name. @param {string} label @param {Child} value @param {{ note?: Child, href?: string, tone?: string }} [options] */
export function stat(label, value, { note, href, tone = "" } = {}) {
    return h(href ? "a" : "div", { class: `stat ${tone}`, href, dataset: { key: label } },
        h("span", { class: "stat-label" }, label), h("span", { class: "stat-value" }, value), note && h("span", { class: "stat-note" }, note));
}

/** A horizontal bar. @param {number | null} share from 0 to 1 @param {string} label for those who hear the page @param {string} [tone] */
export function bar(share, label, tone = "") {
    const width = Math.max(0, Math.min(1, share ?? 0));
    return h("div", { class: `bar ${tone}`, role: "progressbar", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": Math.round(width * 100) },
        h("span", { style: { width: `${(width * 100).toFixed(2)}%` } }));
}

/** Names and values. @param {[string, Child][]} pairs */
export function facts(pairs) {
    return h("dl", { class: "facts" }, pairs.map(([name, value]) =>
        h("div", { dataset: { key: name } }, h("dt", null, name), h("dd", null, value === "" || value === null || value === undefined ? "–" : value))));
}

/** What to do where there is nothing yet. @param {string} title @param {...Child} text */
export const empty = (title, ...text) => h("div", { class: "empty" }, h("p", { class: "empty-title" }, title), h("p", null, text));

/** JSON as text. @param {any} value */
export const json = (value) => h("pre", { class: "json", tabindex: 0 }, JSON.stringify(value, null, 2));

/** A table's arguments and the like, short. @param {Record<string, any> | undefined} table */
export function pairs(table) {
    const entries = Object.entries(table ?? {});
    if (entries.length === 0) return "–";
    return h("ul", { class: "pairs" }, entries.map(([key, value]) =>
        h("li", null, h("code", null, key), " ", typeof value === "object" ? JSON.stringify(value) : String(value))));
}

/** What went wrong and what to do. @param {unknown} error @param {(() => void)} [retry] */
export function problem(error, retry) {
    const advice = error instanceof ApiError ? error.advice : "Reload the page; if it stays, report it with what the browser's console says.";
    if (!(error instanceof ApiError)) console.error(error);
    const message = error instanceof Error ? error.message : String(error);
    return h("div", { class: "notice bad", role: "alert" }, icon("warning"),
        h("div", null, h("p", { class: "notice-title" }, message), h("p", null, advice)),
        retry && h("button", { type: "button", class: "button", onclick: retry }, "Try again"));
}

/** @param {Child[]} text @param {"warn" | "bad" | "accent"} [tone] */
export const notice = (text, tone = "warn") => h("div", { class: `notice ${tone}` }, icon("warning"), h("div", null, h("p", null, text)));

/** A button. @param {Child} label @param {() => void} onclick @param {{ tone?: string, label?: string, disabled?: boolean, hint?: string }} [options] */
export const button = (label, onclick, { tone = "", label: spoken, disabled, hint } = {}) =>
    h("button", { type: "button", class: `button ${tone}`, onclick, disabled, "aria-label": spoken, title: hint }, label);

/** Says a short thing that has happened, also to those who hear the page. @param {string} text @param {"good" | "bad"} [tone] */
export function say(text, tone = "good") {
    const region = document.getElementById("said");
    const line = h("p", { class: `toast ${tone}` }, text);
    region?.append(line);
    setTimeout(() => line.remove(), tone === "bad" ? 12_000 : 6_000);
}

/**
 * A field of a form.
 * @typedef {{ name: string, label: string, kind?: "text" | "password" | "number" | "textarea" | "select" | "checkbox" | "json" | "file",
 *   value?: any, options?: (string | [string, string])[], required?: boolean, hint?: Child, placeholder?: string, wide?: boolean, max?: number, min?: number, autocomplete?: string }} Field
 */

let fieldCount = 0;

/** @param {Field} field */
function control(field) {
    const id = `field-${(fieldCount += 1)}`;
    const common = { id, name: field.name, required: field.required, "aria-describedby": field.hint ? `${id}-hint` : undefined, placeholder: field.placeholder, spellcheck: "false", autocomplete: field.autocomplete ?? "off" };
    const input = field.kind === "select"
        ? h("select", { ...common, placeholder: undefined, autocomplete: undefined }, (field.options ?? []).map((option) => {
            const [value, label] = Array.isArray(option) ? option : [option, option];
            return h("option", { value, selected: value === field.value }, label);
        }))
        : field.kind === "textarea" || field.kind === "json"
            ? h("textarea", { ...common, rows: field.kind === "json" ? 3 : 5, value: field.value ?? "" })
            : h("input", { ...common, type: field.kind ?? "text", min: field.min, max: field.max, checked: field.kind === "checkbox" && field.value === true, value: field.kind === "checkbox" ? undefined : field.value ?? "" });
    const hint = field.hint && h("span", { class: "hint", id: `${id}-hint` }, field.hint);
    const check = field.kind === "checkbox";
    return h("div", { class: `field ${field.wide || field.kind === "textarea" || field.kind === "json" ? "wide" : ""} ${check ? "check" : ""}` },
        check ? [h("label", { for: id }, input, h("span", null, field.label)), hint] : [h("label", { for: id }, field.label), input, hint]);
}

/** What a form says. @param {HTMLFormElement} form @param {Field[]} fields @returns {Record<string, any>} */
function read(form, fields) {
    /** @type {Record<string, any>} */
    const values = {};
    for (const field of fields) {
        const input = /** @type {any} */ (form.elements.namedItem(field.name));
        if (field.kind === "checkbox") values[field.name] = input.checked;
        else if (field.kind === "file") values[field.name] = input.files?.[0];
        else if (field.kind === "number") values[field.name] = input.value === "" ? null : Number(input.value);
        else if (field.kind === "json") values[field.name] = readObject(input.value, field.label);
        else values[field.name] = input.value;
    }
    return values;
}

/** @param {string} text @param {string} label */
function readObject(text, label) {
    if (text.trim() === "") return {};
    try {
        const value = JSON.parse(text);
        if (value !== null && typeof value === "object" && !Array.isArray(value)) return value;
    } catch { /* said below */ }
    throw new ApiError(0, `${label} is not a JSON object.`, "Write it as in {\"x-max-length\": 1000}.");
}

/**
 * A form that sends what it says and shows what went wrong beside its button.
 * @param {{ fields: Field[], action: string, tone?: string, submit: (values: Record<string, any>) => Promise<any>, keep?: boolean, cancel?: () => void, label?: string }} options
 * @returns {HTMLFormElement}
 */
export function form({ fields, action, tone = "primary", submit, keep = false, cancel, label }) {
    const problems = h("div", { "aria-live": "polite" });
    const send = h("button", { type: "submit", class: `button ${tone}` }, action);
    const element = h("form", {
        class: "form", "aria-label": label, dataset: { own: "", key: label ?? action },
        onsubmit: async (/** @type {Event} */ event) => {
            event.preventDefault();
            replace(problems);
            send.disabled = true;
            try {
                await submit(read(element, fields));
                if (!keep) element.reset();
            } catch (error) {
                replace(problems, problem(error));
            } finally {
                send.disabled = false;
            }
        },
    }, h("div", { class: "fields" }, fields.map(control)), problems,
    h("div", { class: "form-actions" }, cancel && button("Cancel", cancel), send));
    return element;
}

/** Opens a window over the page. @param {string} title @param {(close: () => void) => (Child | Child[])} fillIn */
export function dialog(title, fillIn) {
    const before = /** @type {HTMLElement | null} */ (document.activeElement);
    const id = `dialog-${(fieldCount += 1)}`;
    const element = /** @type {HTMLDialogElement} */ (h("dialog", { "aria-labelledby": id, class: "dialog" }));
    const close = () => element.close();
    element.append(h("h2", { id }, title), h("div", { class: "dialog-body" }, fillIn(close)));
    // Who goes elsewhere leaves its question behind.
    addEventListener("hashchange", close);
    element.addEventListener("close", () => {
        removeEventListener("hashchange", close);
        element.remove();
        if (before?.isConnected) before.focus();
    });
    document.body.append(element);
    element.showModal();
    return close;
}

/** A form in a window. @param {string} title @param {Parameters<typeof form>[0] & { lead?: Child }} options */
export function formDialog(title, options) {
    dialog(title, (close) => [options.lead && h("p", { class: "lead" }, options.lead),
        form({ ...options, label: title, cancel: close, submit: async (values) => { await options.submit(values); close(); } })]);
}

/**
 * Asks before something that cannot be undone.
 * @param {{ title: string, text: Child[] | Child, action: string, run: () => Promise<any>, done: string, then?: () => void }} options
 */
export function confirm({ title, text, action, run, done, then }) {
    dialog(title, (close) => [h("p", { class: "lead" }, text), form({
        fields: [], action, tone: "danger", label: title, cancel: close,
        submit: async () => {
            await run();
            close();
            say(done);
            then?.();
        },
    })]);
}
