// Policies: settings for all queues and exchanges whose names match.
// @ts-check
import * as api from "./api.js";
import { h } from "./dom.js";
import { icon } from "./icons.js";
import { list, vhostNames } from "./table.js";
import { badge, button, confirm, empty, formDialog, pairs, say, section } from "./ui.js";

/** @typedef {"policies" | "operator-policies"} Kind */

/** @param {import("./shell.js").View} view */
export default function policies(view) {
    view.head("Policies", { lead: "Settings for all queues and exchanges whose names match a pattern. Of several that match, the one with the highest priority counts; an operator policy limits what the others may say." });
    view.show(
        section("Policies", { actions: api.may("policymaker") && [button([icon("plus"), "Add policy"], () => edit(view, "policies"), { tone: "primary" })] }, policyList(view, "policies")),
        section("Operator policies", { actions: api.may("administrator") && [button([icon("plus"), "Add operator policy"], () => edit(view, "operator-policies"))] }, policyList(view, "operator-policies")));
}

/** @param {import("./shell.js").View} view @param {Kind} kind */
function policyList(view, kind) {
    const mayChange = api.may(kind === "policies" ? "policymaker" : "administrator");
    return list(view, {
        name: kind === "policies" ? "Policies" : "Operator policies",
        path: `/${kind}`,
        search: kind === "policies",
        intervalMs: 10_000,
        key: (policy) => `${policy.vhost}\n${policy.name}`,
        nothing: empty(kind === "policies" ? "No policies" : "No operator policies", kind === "policies" ? "With a policy you set limits, expiry or dead lettering without changing the clients." : "They bound what users' policies and arguments may ask for."),
        columns: [
            { label: "Name", head: true, sort: "name", cell: (policy) => policy.name },
            { label: "Virtual host", sort: "vhost", wide: true, cell: (policy) => policy.vhost },
            { label: "Pattern", cell: (policy) => h("code", null, policy.pattern) },
            { label: "Applies to", cell: (policy) => badge(policy["apply-to"]) },
            { label: "Definition", cell: (policy) => pairs(policy.definition) },
            { label: "Priority", sort: "priority", number: true, cell: (policy) => String(policy.priority) },
            { label: "", number: true, hidden: !mayChange, cell: (policy) => h("div", { class: "actions" },
                button("Change", () => edit(view, kind, policy), { tone: "small", label: `Change ${policy.name}` }),
                button("Delete", () => confirm({
                    title: `Delete ${policy.name}?`, action: "Delete policy", done: `Policy ${policy.name} is deleted.`, text: "What it set no longer counts for the queues and exchanges that matched.",
                    run: () => api.remove(`/${kind}${api.at`/${policy.vhost}/${policy.name}`}`),
                }), { tone: "small warnable", label: `Delete ${policy.name}` })) },
        ],
    });
}

/** @param {import("./shell.js").View} view @param {Kind} kind @param {any} [policy] one that is there */
async function edit(view, kind, policy) {
    const vhosts = policy ? [policy.vhost] : await vhostNames(view).catch(() => ["/"]);
    formDialog(policy ? `Change ${policy.name}` : kind === "policies" ? "Add a policy" : "Add an operator policy", {
        action: policy ? "Save" : "Add policy",
        fields: [
            ...(policy ? [] : [{ name: "name", label: "Name", required: true }]),
            { name: "vhost", label: "Virtual host", kind: "select", options: vhosts },
            { name: "pattern", label: "Pattern", required: true, value: policy?.pattern ?? "", hint: "Regular expression over names, as in ^orders\\." },
            { name: "to", label: "Applies to", kind: "select", value: policy?.["apply-to"] ?? "queues", options: kind === "policies" ? ["queues", "exchanges", "all", "classic_queues", "quorum_queues", "streams"] : ["queues", "classic_queues", "quorum_queues", "streams"] },
            { name: "priority", label: "Priority", kind: "number", value: policy?.priority ?? 0, required: true },
            { name: "definition", label: "Definition", kind: "json", value: policy ? JSON.stringify(policy.definition, null, 2) : "", hint: h("span", null, "JSON, as in ", h("code", null, "{\"max-length\": 100000, \"overflow\": \"reject-publish\"}")) },
        ],
        submit: async ({ name, vhost, pattern, to, priority, definition }) => {
            await api.put(`/${kind}${api.at`/${vhost}/${policy?.name ?? name}`}`, { pattern, "apply-to": to, priority, definition });
            say(`Policy ${policy?.name ?? name} is set.`);
        },
    });
}
