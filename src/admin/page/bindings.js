// What is bound to what, as seen from a queue or an exchange; binding and unbinding.
// @ts-check
import * as api from "./api.js";
import { h, replace, update } from "./dom.js";
import { exchangeName } from "./format.js";
import { link } from "./router.js";
import { table } from "./table.js";
import { button, confirm, empty, form, pairs, problem, say, section } from "./ui.js";

const SHOWN_MAX = 100;

/** @typedef {{ vhost: string, name: string, end: "queue" | "source" | "destination" }} End */

/** The name that stands in paths. @param {string} name */
export const inPath = (name) => (name === "" ? "amq.default" : name);

/** A section that keeps itself up to date. @param {import("./shell.js").View} view @param {End} end */
export function bindingsOf(view, { vhost, name, end }) {
    const path = end === "queue" ? api.at`/queues/${vhost}/${name}/bindings` : `${api.at`/exchanges/${vhost}/${inPath(name)}/bindings`}/${end}`;
    const title = { queue: "Bindings", source: "Bindings from here", destination: "Bindings to here" }[end];
    const body = h("div", { class: "list-body" });
    const load = async () => {
        const { items, filtered_count: all } = await api.get(path, { page: 1, page_size: SHOWN_MAX }, view.signal);
        const rows = items.filter((/** @type {any} */ binding) => end !== "queue" || binding.source !== "");
        const none = end === "queue"
            ? empty("Bound to no exchange", "Messages reach it by its name through the default exchange. Bind it below to receive by other routing keys.")
            : empty("No bindings", end === "source" ? "What is published here goes nowhere. Bind a queue below." : "No other exchange sends here.");
        update(body, rows.length === 0 ? none : [bindingTable(rows, end, refresh), all > SHOWN_MAX && h("p", { class: "hint" }, `The first ${SHOWN_MAX} of ${all}.`)]);
    };
    const refresh = () => load().catch((error) => { if (!view.signal.aborted) replace(body, problem(error, refresh)); });
    refresh();
    const canAdd = end !== "destination" && !(end === "source" && name === "");
    const element = section(title, {}, body, canAdd && h("details", { class: "panel add" }, h("summary", null, "Add a binding"), addForm({ vhost, name, end }, refresh)));
    element.dataset.own = "";
    return element;
}

/** @param {any[]} rows @param {End["end"]} end @param {() => void} changed */
function bindingTable(rows, end, changed) {
    const exchange = (/** @type {any} */ binding) => h("a", { href: link("exchanges", binding.vhost, binding.source) }, exchangeName(binding.source));
    const target = (/** @type {any} */ binding) => h("a", { href: link(binding.destination_type === "queue" ? "queues" : "exchanges", binding.vhost, binding.destination) }, `${binding.destination_type} ${binding.destination}`);
    return table("Bindings", [
        { label: end === "source" ? "To" : "From", head: true, cell: end === "source" ? target : exchange },
        { label: "Routing key", cell: (binding) => (binding.routing_key === "" ? h("span", { class: "muted" }, "(empty)") : h("code", null, binding.routing_key)) },
        { label: "Arguments", cell: (binding) => pairs(binding.arguments) },
        { label: "", number: true, cell: (binding) => binding.source !== "" && button("Unbind", () => unbind(binding, changed), { tone: "small warnable", label: `Unbind ${binding.destination} from ${exchangeName(binding.source)}, routing key ${binding.routing_key}` }) },
    ], rows, (binding) => JSON.stringify([binding.source, binding.destination_type, binding.destination, binding.properties_key]));
}

/** @param {any} binding @param {() => void} changed */
function unbind(binding, changed) {
    const kind = binding.destination_type === "queue" ? "q" : "e";
    confirm({
        title: "Remove the binding?", action: "Unbind", done: "The binding is gone.", then: changed,
        text: `Messages of ${exchangeName(binding.source)} with the routing key “${binding.routing_key}” no longer reach ${binding.destination} by it.`,
        run: () => api.remove(api.at`/bindings/${binding.vhost}/e/${inPath(binding.source)}/${kind}/${binding.destination}/${binding.properties_key}`),
    });
}

/** @param {End} end @param {() => void} changed */
function addForm({ vhost, name, end }, changed) {
    const other = end === "queue"
        ? [{ name: "other", label: "From exchange", required: true }]
        : [{ name: "kind", label: "To", kind: /** @type {const} */ ("select"), options: /** @type {[string, string][]} */ ([["q", "queue"], ["e", "exchange"]]) }, { name: "other", label: "Its name", required: true }];
    return form({
        label: "Add a binding", action: "Bind", tone: "",
        fields: [...other, { name: "key", label: "Routing key" }, { name: "arguments", label: "Arguments", kind: "json", hint: "JSON, may be empty" }],
        submit: async (values) => {
            const path = end === "queue" ? api.at`/bindings/${vhost}/e/${values.other}/q/${name}` : api.at`/bindings/${vhost}/e/${name}/${values.kind}/${values.other}`;
            await api.post(path, { routing_key: values.key, arguments: values.arguments });
            say("Bound.");
            changed();
        },
    });
}
