// How much users and virtual hosts may have.
// @ts-check
import * as api from "./api.js";
import { h } from "./dom.js";
import { count } from "./format.js";
import { editable } from "./permissions.js";
import { link } from "./router.js";
import { table } from "./table.js";
import { button, empty, form, say, section } from "./ui.js";

/** @typedef {"user" | "vhost"} Kind */

const NAMES = /** @type {Record<Kind, [string, string][]>} */ ({
    user: [["max-connections", "Connections"], ["max-channels", "Channels"]],
    vhost: [["max-connections", "Connections"], ["max-queues", "Queues"]],
});

/** @param {import("./shell.js").View} view */
export default function limits(view) {
    view.head("Limits", { lead: "What users and virtual hosts may have at most. Without a limit there is none." });
    const show = () => view.show(["vhost", "user"].filter((kind) => kind === "vhost" || api.may("administrator")).map((kind) => all(view, /** @type {Kind} */ (kind))));
    show();
}

/** Limits of all users or virtual hosts. @param {import("./shell.js").View} view @param {Kind} kind */
function all(view, kind) {
    const title = kind === "user" ? "Users" : "Virtual hosts";
    const draw = (/** @type {any[]} */ rows, /** @type {() => void} */ changed) => {
        const lines = rows.flatMap((row) => Object.entries(row.value).map(([name, value]) => ({ of: row[kind], name, value })));
        if (lines.length === 0) return empty("No limits", `Set one below to bound what a ${kind === "user" ? "user" : "virtual host"} can open.`);
        return table(`Limits of ${title.toLowerCase()}`, [
            { label: kind === "user" ? "User" : "Virtual host", head: true, cell: (row) => h("a", { href: link(`${kind}s`, row.of) }, row.of) },
            ...lineColumns(kind, changed),
        ], lines, (row) => `${row.of}\n${row.name}`);
    };
    if (!api.may("administrator")) {
        const element = section(title, {});
        api.get(`/${kind}-limits`, {}, view.signal).then((rows) => element.append(draw(rows, () => {})), (error) => view.fail(error));
        return element;
    }
    return editable(view, title, "", `/${kind}-limits`, draw, (changed) => setForm(kind, null, changed));
}

/** Limits of one user or virtual host. @param {import("./shell.js").View} view @param {Kind} kind @param {string} name */
export function limitsOf(view, kind, name) {
    return editable(view, "Limits", "", `/${kind}-limits${api.at`/${name}`}`, (rows, changed) => {
        const lines = rows.flatMap((row) => Object.entries(row.value).map(([limit, value]) => ({ of: name, name: limit, value })));
        return lines.length === 0 ? empty("No limits", "It may have as much as the broker can bear.") : table("Limits", lineColumns(kind, changed), lines, (row) => row.name);
    }, (changed) => setForm(kind, name, changed));
}

/** @param {Kind} kind @param {() => void} changed @returns {import("./table.js").Column[]} */
const lineColumns = (kind, changed) => [
    { label: "Limit", cell: (row) => NAMES[kind].find(([name]) => name === row.name)?.[1] ?? row.name },
    { label: "At most", number: true, cell: (row) => count(row.value) },
    { label: "", number: true, cell: (row) => api.may("administrator") && button("Lift", async () => {
        await api.remove(`/${kind}-limits${api.at`/${row.of}/${row.name}`}`);
        say("The limit is lifted.");
        changed();
    }, { tone: "small", label: `Lift the limit ${row.name} of ${row.of}` }) },
];

/** @param {Kind} kind @param {string | null} of @param {() => void} changed */
const setForm = (kind, of, changed) => form({
    label: `Set a limit of a ${kind === "user" ? "user" : "virtual host"}`, action: "Set limit", tone: "", keep: true,
    fields: [
        ...(of === null ? [{ name: "of", label: kind === "user" ? "User" : "Virtual host", required: true }] : []),
        { name: "name", label: "Limit", kind: /** @type {const} */ ("select"), options: NAMES[kind] },
        { name: "value", label: "At most", kind: /** @type {const} */ ("number"), min: 0, required: true },
    ],
    submit: async ({ of: given, name, value }) => {
        await api.put(`/${kind}-limits${api.at`/${of ?? given}/${name}`}`, { value });
        say("The limit is set.");
        changed();
    },
});
