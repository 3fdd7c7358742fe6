// Users: who may sign in, and with which tags.
// @ts-check
import * as api from "./api.js";
import { h } from "./dom.js";
import { icon } from "./icons.js";
import { link } from "./router.js";
import { list } from "./table.js";
import { badge, button, empty, formDialog, pairs, say } from "./ui.js";

/** RabbitMQ's tags, and what each lets its users do here. */
const TAGS = /** @type {[string, string][]} */ ([
    ["administrator", "everything"], ["monitoring", "sees all connections and nodes"], ["policymaker", "sets policies in its virtual hosts"], ["management", "signs in here and sees its own"],
]);

/** @param {import("./shell.js").View} view */
export default function users(view) {
    const add = () => userForm("Add a user", "Add user", "", []);
    view.head("Users", { actions: button([icon("plus"), "Add user"], add, { tone: "primary" }) });
    view.show(list(view, {
        name: "Users",
        path: "/users",
        intervalMs: 15_000,
        fields: ["name", "tags", "limits", "password_hash", "hashing_algorithm"],
        key: (user) => user.name,
        nothing: empty("No users", "Add one, or nobody can sign in any more."),
        columns: [
            { label: "Name", head: true, sort: "name", cell: (user) => h("a", { href: link("users", user.name) }, user.name) },
            { label: "Tags", cell: (user) => tagBadges(user.tags) },
            { label: "Password", cell: (user) => (user.password_hash === "" ? badge("none", "warn", "Can sign in by certificate or token only") : String(user.hashing_algorithm).replace("rabbit_password_hashing_", "").replace("warren_password_hashing_", "")) },
            { label: "Limits", wide: true, cell: (user) => pairs(user.limits) },
        ],
    }));
}

/** @param {string[] | string} tags */
export function tagBadges(tags) {
    const all = Array.isArray(tags) ? tags : String(tags).split(",").filter(Boolean);
    return all.length === 0 ? h("span", { class: "muted" }, "none: AMQP only") : h("span", { class: "dots" }, all.map((tag) => badge(tag, tag === "administrator" ? "accent" : "neutral")));
}

/** @param {string} title @param {string} action @param {string} name of a user who is there, or empty @param {string[]} tags @param {() => void} [then] */
export function userForm(title, action, name, tags, then) {
    const extra = tags.filter((tag) => !TAGS.some(([known]) => known === tag));
    formDialog(title, {
        action,
        lead: name === "" ? "A new user has no permission in any virtual host until you give it one." : undefined,
        fields: [
            ...(name === "" ? [{ name: "name", label: "Name", required: true }] : []),
            { name: "password", label: name === "" ? "Password" : "New password", kind: "password", autocomplete: "new-password", hint: name === "" ? "Empty: signs in by certificate or token only" : "Empty: stays as it is" },
            ...TAGS.map(([tag, what]) => /** @type {any} */ ({ name: `tag-${tag}`, label: `${tag}: ${what}`, kind: "checkbox", value: tags.includes(tag), wide: true })),
            { name: "extra", label: "Other tags", value: extra.join(", "), wide: true, hint: "With commas between them" },
        ],
        submit: async (values) => {
            const given = TAGS.map(([tag]) => tag).filter((tag) => values[`tag-${tag}`]).concat(values.extra.split(",").map((/** @type {string} */ tag) => tag.trim()).filter(Boolean));
            /** @type {Record<string, any>} */
            const body = { tags: given };
            if (values.password !== "") body.password = values.password;
            else if (name === "") body.password_hash = "";
            else Object.assign(body, await kept(name));
            await api.put(api.at`/users/${name || values.name}`, body);
            say(name === "" ? `User ${values.name} is there. Give it a permission next.` : `User ${name} is changed.`);
            if (name === "") location.hash = link("users", values.name);
            then?.();
        },
    });
}

/** The password as it is: a change of tags keeps it. @param {string} name */
async function kept(name) {
    const { password_hash, hashing_algorithm } = await api.get(api.at`/users/${name}`, { columns: "password_hash,hashing_algorithm" });
    return password_hash === "" ? {} : { password_hash, hashing_algorithm };
}
