// One user: tags, permissions, topic permissions, limits.
// @ts-check
import * as api from "./api.js";
import { h } from "./dom.js";
import { limitsOf } from "./limits.js";
import { grants, topicGrants } from "./permissions.js";
import { go } from "./router.js";
import { tagBadges, userForm } from "./users.js";
import { button, confirm } from "./ui.js";

/** @param {import("./shell.js").View} view */
export default function user(view) {
    const { name } = view.params;
    const path = api.at`/users/${name}`;
    const head = (/** @type {string[] | null} */ tags) => view.head(name, {
        kind: "User", back: ["Users", "#/users"], lead: tags && tagBadges(tags),
        actions: [
            button("Change", () => userForm(`Change ${name}`, "Save", name, tags ?? [], refresh), { disabled: tags === null }),
            button("Close connections", () => confirm({
                title: `Close all connections of ${name}?`, action: "Close connections", done: "They are closed.", text: "Clients that reconnect by themselves will be back at once.",
                run: () => api.remove(api.at`/connections/username/${name}`),
            }), { tone: "warnable" }),
            button("Delete", () => confirm({
                title: `Delete ${name}?`, action: "Delete user", done: `User ${name} is deleted.`, then: () => go("#/users"), text: "The user goes with all its permissions, and its connections are closed.",
                run: () => api.remove(path),
            }), { tone: "warnable" }),
        ],
    });
    head(null);
    const rights = grants(view, { user: name });
    const topics = topicGrants(view, { user: name });
    const limits = limitsOf(view, "user", name);
    const refresh = view.poll(15_000, async () => {
        const state = await api.get(path, { columns: "name,tags" }, view.signal);
        head(Array.isArray(state.tags) ? state.tags : String(state.tags).split(",").filter(Boolean));
        view.show(rights, topics, h("div", { class: "columns", dataset: { key: "limits" } }, limits));
    });
}
