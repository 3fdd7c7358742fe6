// Definitions: everything but messages as one file, out and in.
// @ts-check
import * as api from "./api.js";
import { h, replace } from "./dom.js";
import { count } from "./format.js";
import { vhostNames } from "./table.js";
import { dialog, facts, form, notice, say, section } from "./ui.js";

const KINDS = ["users", "vhosts", "permissions", "topic_permissions", "parameters", "global_parameters", "policies", "queues", "exchanges", "bindings"];
const ALL = "\u0000all";

/** @param {import("./shell.js").View} view */
export default async function definitions(view) {
    view.head("Definitions", { lead: "Users, virtual hosts, permissions, policies, exchanges, queues and bindings as one JSON file, as RabbitMQ writes and reads it. Messages are not part of it." });
    const vhosts = await vhostNames(view).catch((error) => {
        view.fail(error);
        return /** @type {string[]} */ ([]);
    });
    const of = /** @type {[string, string][]} */ ([[ALL, "Everything"], ...vhosts.map((name) => [name, `Virtual host ${name}`])]);
    view.show(h("div", { class: "columns" },
        section("Export", {}, h("div", { class: "panel" }, form({
            label: "Export", action: "Download", keep: true,
            fields: [{ name: "of", label: "What", kind: "select", options: of, wide: true }],
            submit: async ({ of: what }) => {
                const document = await api.get(what === ALL ? "/definitions" : api.at`/definitions/${what}`);
                const day = new Date().toISOString().slice(0, 10);
                download(`warren-definitions-${day}.json`, JSON.stringify(document, null, 2));
            },
        })), notice(["The file holds the hashes of all passwords: keep it as safe as a password file."])),
        section("Import", {}, h("div", { class: "panel" }, form({
            label: "Import", action: "Check the file", keep: true,
            fields: [{ name: "file", label: "Definitions file", kind: "file", required: true, wide: true }, { name: "of", label: "Into", kind: "select", options: of, wide: true }],
            submit: async ({ file, of: where }) => {
                let document;
                try {
                    document = JSON.parse(await file.text());
                } catch {
                    throw new api.ApiError(0, `${file.name} is not JSON.`, "Choose a file that RabbitMQ or Warren exported.");
                }
                ask(file.name, document, where);
            },
        })), h("p", { class: "hint" }, "An import adds and changes what the file names. It never deletes anything."))));
}

/** @param {string} name @param {any} document @param {string} where */
function ask(name, document, where) {
    const found = KINDS.filter((kind) => Array.isArray(document?.[kind]));
    if (found.length === 0) throw new api.ApiError(0, `${name} holds no definitions.`, "Choose a file that RabbitMQ or Warren exported.");
    dialog(`Import ${name}?`, (close) => [
        facts(found.map((kind) => [kind.replaceAll("_", " "), count(document[kind].length)])),
        document.users?.length > 0 && where === ALL && h("p", { class: "lead" }, "Users in the file take the place of those with the same name, with their passwords."),
        form({
            fields: [], action: "Import", label: "Import definitions", cancel: close,
            submit: async () => {
                await api.post(where === ALL ? "/definitions" : api.at`/definitions/${where}`, document);
                close();
                say("The definitions are imported.");
            },
        }),
    ]);
}

/** @param {string} name @param {string} text */
function download(name, text) {
    const address = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    const anchor = h("a", { href: address, download: name });
    document.body.append(anchor);
    anchor.click();
    anchor.remove();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
    replace(anchor);
}
