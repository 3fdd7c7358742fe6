// What users may do in virtual hosts: seen from either side.
// @ts-check
import * as api from "./api.js";
import { h, replace, update } from "./dom.js";
import { link } from "./router.js";
import { table } from "./table.js";
import { button, confirm, empty, form, problem, say, section } from "./ui.js";

/** @typedef {{ user?: string, vhost?: string }} Side one of the two: whose, or where */

/**
 * A section with a list that is read again after each change.
 * @param {import("./shell.js").View} view @param {string} title @param {string} note @param {string} path @param {(rows: any[], changed: () => void) => any} draw @param {(changed: () => void) => any} add
 */
export function editable(view, title, note, path, draw, add) {
    const body = h("div", { class: "list-body" });
    const load = () => api.get(path, {}, view.signal).then((rows) => update(body, draw(rows, load)), (error) => { if (!view.signal.aborted) replace(body, problem(error, load)); });
    load();
    const element = section(title, { note }, body, h("details", { class: "panel add" }, h("summary", null, "Add or change"), add(load)));
    element.dataset.own = "";
    return element;
}

/** @param {Side} side @param {string} what */
const pathOf = ({ user, vhost }, what) => (user !== undefined ? `${api.at`/users/${user}`}/${what}` : `${api.at`/vhosts/${vhost ?? ""}`}/${what}`);

/** The column that names the other side. @param {Side} side @returns {import("./table.js").Column} */
const otherSide = ({ user }) => (user !== undefined
    ? { label: "Virtual host", head: true, cell: (row) => h("a", { href: link("vhosts", row.vhost) }, row.vhost) }
    : { label: "User", head: true, cell: (row) => h("a", { href: link("users", row.user) }, row.user) });

/** @param {Side} side @returns {import("./ui.js").Field} */
const otherField = ({ user }) => (user !== undefined ? { name: "vhost", label: "Virtual host", required: true, value: "/" } : { name: "user", label: "User", required: true });

const pattern = (/** @type {string} */ text) => (text === "" ? h("span", { class: "muted" }, "nothing") : h("code", null, text));

/** @param {import("./shell.js").View} view @param {Side} side */
export function grants(view, side) {
    return editable(view, "Permissions", "Regular expressions over names: .* is everything, nothing is nothing.", pathOf(side, "permissions"), (rows, changed) =>
        rows.length === 0 ? empty("No permissions", side.user !== undefined ? "This user can open no connection. Give it a permission in a virtual host below." : "Nobody but administrators can use this virtual host.")
            : table("Permissions", [
                otherSide(side),
                { label: "Configure", cell: (row) => pattern(row.configure) }, { label: "Write", cell: (row) => pattern(row.write) }, { label: "Read", cell: (row) => pattern(row.read) },
                { label: "", number: true, cell: (row) => button("Revoke", () => confirm({
                    title: "Revoke the permission?", action: "Revoke", done: "Revoked.", then: changed, text: `${row.user} can no longer use virtual host ${row.vhost}.`,
                    run: () => api.remove(api.at`/permissions/${row.vhost}/${row.user}`),
                }), { tone: "small warnable", label: `Revoke permission of ${row.user} in ${row.vhost}` }) },
            ], rows, (row) => `${row.user}\n${row.vhost}`),
    (changed) => form({
        label: "Set permission", action: "Set permission", keep: true, tone: "",
        fields: [otherField(side), { name: "configure", label: "Configure", value: ".*" }, { name: "write", label: "Write", value: ".*" }, { name: "read", label: "Read", value: ".*" }],
        submit: async ({ vhost, user, ...patterns }) => {
            await api.put(api.at`/permissions/${side.vhost ?? vhost}/${side.user ?? user}`, patterns);
            say("The permission is set.");
            changed();
        },
    }));
}

/** @param {import("./shell.js").View} view @param {Side} side */
export function topicGrants(view, side) {
    return editable(view, "Topic permissions", "Limit routing keys on topic exchanges.", pathOf(side, "topic-permissions"), (rows, changed) =>
        rows.length === 0 ? empty("No topic permissions", "Without any, permissions above decide alone.")
            : table("Topic permissions", [
                otherSide(side), { label: "Exchange", cell: (row) => row.exchange || "(default)" },
                { label: "Write", cell: (row) => pattern(row.write) }, { label: "Read", cell: (row) => pattern(row.read) },
                { label: "", number: true, cell: (row) => button("Revoke", () => confirm({
                    title: "Revoke the topic permission?", action: "Revoke", done: "Revoked.", then: changed, text: `${row.user} is no longer limited by it on ${row.exchange || "the default exchange"}.`,
                    run: () => api.remove(api.at`/topic-permissions/${row.vhost}/${row.user}/${row.exchange}`),
                }), { tone: "small warnable", label: `Revoke topic permission of ${row.user} on ${row.exchange}` }) },
            ], rows, (row) => `${row.user}\n${row.vhost}\n${row.exchange}`),
    (changed) => form({
        label: "Set topic permission", action: "Set topic permission", keep: true, tone: "",
        fields: [otherField(side), { name: "exchange", label: "Exchange", value: "amq.topic" }, { name: "write", label: "Write", value: ".*" }, { name: "read", label: "Read", value: ".*" }],
        submit: async ({ vhost, user, ...rest }) => {
            await api.put(api.at`/topic-permissions/${side.vhost ?? vhost}/${side.user ?? user}`, rest);
            say("The topic permission is set.");
            changed();
        },
    }));
}
