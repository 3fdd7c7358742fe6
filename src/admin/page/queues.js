// All queues, and adding one.
// @ts-check
import * as api from "./api.js";
import { h } from "./dom.js";
import * as format from "./format.js";
import { icon } from "./icons.js";
import { go, link } from "./router.js";
import { list, vhostNames } from "./table.js";
import { badge, button, empty, formDialog, say } from "./ui.js";

/** @param {import("./shell.js").View} view */
export default function queues(view) {
    const add = () => addQueue(view);
    view.head("Queues", { actions: button([icon("plus"), "Add queue"], add, { tone: "primary" }) });
    view.show(list(view, {
        name: "Queues",
        path: "/queues",
        pathIn: (vhost) => api.at`/queues/${vhost}`,
        fields: ["name", "vhost", "type", "durable", "auto_delete", "exclusive", "arguments", "policy", "operator_policy", "consumers", "state", "messages", "messages_ready", "messages_unacknowledged",
            "message_bytes", "message_stats.publish_details.rate", "message_stats.deliver_get_details.rate", "message_stats.ack_details.rate"],
        key: (queue) => `${queue.vhost}\n${queue.name}`,
        nothing: () => empty("No queues yet", "Clients declare the queues that they need; you can also ", button("add one", add, { tone: "small" }), " by hand."),
        columns: [
            { label: "Name", head: true, sort: "name", cell: (queue) => h("a", { href: link("queues", queue.vhost, queue.name) }, queue.name) },
            { label: "Virtual host", sort: "vhost", wide: true, cell: (queue) => queue.vhost },
            { label: "Type", sort: "type", cell: (queue) => kind(queue) },
            { label: "Ready", sort: "messages_ready", number: true, cell: (queue) => format.count(queue.messages_ready) },
            { label: "Unacked", sort: "messages_unacknowledged", number: true, cell: (queue) => format.count(queue.messages_unacknowledged) },
            { label: "Size", sort: "message_bytes", number: true, wide: true, cell: (queue) => format.bytes(queue.message_bytes) },
            { label: "Consumers", sort: "consumers", number: true, cell: (queue) => format.count(queue.consumers) },
            { label: "Published", sort: "message_stats.publish_details.rate", number: true, cell: (queue) => format.rate(queue.message_stats?.publish_details?.rate) },
            { label: "Delivered", sort: "message_stats.deliver_get_details.rate", number: true, wide: true, cell: (queue) => format.rate(queue.message_stats?.deliver_get_details?.rate) },
            { label: "Acked", sort: "message_stats.ack_details.rate", number: true, wide: true, cell: (queue) => format.rate(queue.message_stats?.ack_details?.rate) },
        ],
    }));
}

/** What sort of queue it is, in a few badges. @param {any} queue */
export function kind(queue) {
    const has = (/** @type {string} */ argument) => queue.arguments?.[`x-${argument}`] !== undefined;
    return h("span", { class: "dots" },
        badge(queue.type, queue.type === "classic" ? "neutral" : "accent"),
        queue.durable ? null : badge("transient", "warn", "Gone when the broker stops"),
        queue.auto_delete && badge("auto-delete", "neutral", "Goes with its last consumer"),
        queue.exclusive && badge("exclusive", "neutral", "Belongs to one connection"),
        (has("message-ttl") || has("expires")) && badge("TTL", "neutral", "Messages or the queue expire"),
        (has("max-length") || has("max-length-bytes")) && badge("limit", "neutral", "Its length is limited"),
        has("dead-letter-exchange") && badge("DLX", "neutral", `Dead letters go to ${queue.arguments["x-dead-letter-exchange"]}`),
        has("max-priority") && badge("priority"),
        has("single-active-consumer") && badge("single active"),
        queue.policy && badge(queue.policy, "accent", "Policy"));
}

/** @param {import("./shell.js").View} view */
async function addQueue(view) {
    const vhosts = await vhostNames(view).catch(() => ["/"]);
    formDialog("Add a queue", {
        action: "Add queue",
        fields: [
            { name: "name", label: "Name", required: true, wide: true },
            { name: "vhost", label: "Virtual host", kind: "select", options: vhosts },
            { name: "type", label: "Type", kind: "select", options: ["classic", "quorum", "stream"] },
            { name: "durable", label: "Durable: survives a restart", kind: "checkbox", value: true },
            { name: "auto_delete", label: "Goes with its last consumer", kind: "checkbox" },
            { name: "length", label: "Most messages", kind: "number", min: 0, hint: "Empty: no limit" },
            { name: "ttl", label: "Messages expire after (ms)", kind: "number", min: 0, hint: "Empty: never" },
            { name: "dlx", label: "Dead letter exchange", hint: "Empty: dropped messages are gone" },
            { name: "arguments", label: "Further arguments", kind: "json", hint: h("span", null, "JSON, as in ", h("code", null, "{\"x-max-priority\": 5}")) },
        ],
        submit: async (values) => {
            const given = { ...values.arguments };
            const set = (/** @type {string} */ name, /** @type {any} */ value) => { if (value !== null && value !== "") given[name] = value; };
            set("x-max-length", values.length);
            set("x-message-ttl", values.ttl);
            set("x-dead-letter-exchange", values.dlx);
            if (values.type !== "classic") given["x-queue-type"] = values.type;
            await api.put(api.at`/queues/${values.vhost}/${values.name}`, { durable: values.durable, auto_delete: values.auto_delete, arguments: given });
            say(`Queue ${values.name} is there.`);
            go(link("queues", values.vhost, values.name));
        },
    });
}
