// Virtual hosts.
// @ts-check
import * as api from "./api.js";
import { h } from "./dom.js";
import * as format from "./format.js";
import { icon } from "./icons.js";
import { go, link } from "./router.js";
import { list } from "./table.js";
import { badge, button, empty, formDialog, say } from "./ui.js";

/** @param {import("./shell.js").View} view */
export default function vhosts(view) {
    view.head("Virtual hosts", { actions: api.may("administrator") && button([icon("plus"), "Add virtual host"], add, { tone: "primary" }) });
    view.show(list(view, {
        name: "Virtual hosts",
        path: "/vhosts",
        intervalMs: 10_000,
        key: (vhost) => vhost.name,
        nothing: empty("No virtual hosts", "You have no permission in any. Ask an administrator for one."),
        columns: [
            { label: "Name", head: true, sort: "name", cell: (vhost) => h("a", { href: link("vhosts", vhost.name) }, vhost.name) },
            { label: "Description", wide: true, cell: (vhost) => vhost.description },
            { label: "Tags", wide: true, cell: (vhost) => h("span", { class: "dots" }, (vhost.tags ?? []).map((/** @type {string} */ tag) => badge(tag))) },
            { label: "Tracing", cell: (vhost) => (vhost.tracing ? badge("on", "warn") : badge("off")) },
            { label: "Ready", sort: "messages_ready", number: true, cell: (vhost) => format.count(vhost.messages_ready) },
            { label: "Unacked", sort: "messages_unacknowledged", number: true, cell: (vhost) => format.count(vhost.messages_unacknowledged) },
        ],
    }));
}

function add() {
    formDialog("Add a virtual host", {
        action: "Add virtual host",
        lead: "You get all permissions in it; others get none.",
        fields: [
            { name: "name", label: "Name", required: true },
            { name: "type", label: "Type of queues that name none", kind: "select", options: [["", "classic"], "quorum", "stream"] },
            { name: "description", label: "Description", wide: true }, { name: "tags", label: "Tags", wide: true, hint: "With commas between them" },
        ],
        submit: async ({ name, type, description, tags }) => {
            await api.put(api.at`/vhosts/${name}`, { description, tags, ...(type === "" ? {} : { default_queue_type: type }) });
            say(`Virtual host ${name} is there.`);
            go(link("vhosts", name));
        },
    });
}
