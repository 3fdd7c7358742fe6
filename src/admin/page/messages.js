// Looking at messages, taking them, and publishing one.
// @ts-check
import * as api from "./api.js";
import { h, replace } from "./dom.js";
import * as format from "./format.js";
import { badge, empty, facts, form, json, problem, say, section } from "./ui.js";

/** How to get messages: what happens to them. */
const WAYS = /** @type {[string, string][]} */ ([
    ["peek", "Look, and leave them as they are"],
    ["ack_requeue_true", "Get, then put them back (they count as redelivered)"],
    ["ack_requeue_false", "Take them out of the queue"],
    ["reject_requeue_false", "Reject them (they go to the dead letter exchange, if any)"],
]);
const BODY_BYTES_SHOWN = 50_000;

/** @param {{ path: string, changed: () => void }} options */
export function messagesPanel({ path, changed }) {
    const shown = h("div", { "aria-live": "polite", class: "messages" });
    const panel = form({
        label: "Messages", action: "Get messages", keep: true,
        fields: [
            { name: "way", label: "What happens to them", kind: "select", options: WAYS, value: "peek" },
            { name: "count", label: "How many", kind: "number", value: 10, min: 1, max: 1000, required: true },
            { name: "offset", label: "Skip the first", kind: "number", value: 0, min: 0, hint: "Only when looking" },
        ],
        submit: async ({ way, count, offset }) => {
            const asked = { ackmode: way, count, encoding: "auto", truncate: BODY_BYTES_SHOWN, ...(way === "peek" ? { offset: offset ?? 0 } : {}) };
            const messages = await api.post(`${path}/get`, asked);
            const none = empty("No message there", offset > 0 ? "Fewer messages wait than you skip." : "The queue is empty, or everything is with consumers.");
            replace(shown, messages.length === 0 ? none : messages.map((/** @type {any} */ one, /** @type {number} */ index) => message(one, index + 1 + (way === "peek" ? offset ?? 0 : 0))));
            if (way !== "peek") changed();
        },
    });
    const element = section("Messages", { note: "Look at what waits without taking it." }, h("div", { class: "panel" }, panel), shown);
    element.dataset.own = "";
    return element;
}

/** @param {any} one @param {number} number */
function message(one, number) {
    const { headers, ...properties } = one.properties ?? {};
    const isText = one.payload_encoding === "string";
    const isCut = one.payload_id === undefined && one.payload.length > 0 && isText && new TextEncoder().encode(one.payload).length < one.payload_bytes;
    return h("article", { class: "message panel" },
        h("header", null, h("h3", null, `Message ${number}`), one.redelivered && badge("redelivered", "warn"), badge(format.bytes(one.payload_bytes)), one.payload_id && badge("payload", "accent"), !isText && badge("base64")),
        facts([
            ["Exchange", format.exchangeName(one.exchange)], ["Routing key", one.routing_key], ["Behind it", format.count(one.message_count)],
            ...Object.entries(properties).map(([name, value]) => /** @type {[string, any]} */ ([name.replaceAll("_", " "), name === "timestamp" ? format.time(value * 1000) : String(value)])),
        ]),
        headers && Object.keys(headers).length > 0 && h("div", null, h("h4", null, "Headers"), json(headers)),
        h("div", null, h("h4", null, "Body"),
            one.payload_id ? h("p", null, "Stored as payload ", h("code", null, one.payload_id), ".") : h("pre", { class: "json", tabindex: 0 }, one.payload === "" ? "(empty)" : one.payload),
            isCut && h("p", { class: "hint" }, `The first ${format.bytes(BODY_BYTES_SHOWN)} of ${format.bytes(one.payload_bytes)}.`)));
}

/** @param {{ path: string, routingKey: string, changed: () => void }} options */
export function publishPanel({ path, routingKey, changed }) {
    const result = h("div", { "aria-live": "polite" });
    const panel = form({
        label: "Publish", action: "Publish message", keep: true, tone: "",
        fields: [
            { name: "key", label: "Routing key", value: routingKey },
            { name: "persistent", label: "Persistent: survives a restart", kind: "checkbox", value: true },
            { name: "type", label: "Content type", placeholder: "text/plain" },
            { name: "body", label: "Body", kind: "textarea" },
            { name: "headers", label: "Headers", kind: "json", hint: "JSON, may be empty" },
            { name: "properties", label: "Further properties", kind: "json", hint: h("span", null, "JSON, as in ", h("code", null, "{\"priority\": 3, \"expiration\": \"60000\"}")) },
        ],
        submit: async (values) => {
            replace(result);
            const properties = { delivery_mode: values.persistent ? 2 : 1, ...values.properties };
            if (values.type !== "") properties.content_type = values.type;
            if (Object.keys(values.headers).length > 0) properties.headers = values.headers;
            const { routed } = await api.post(path, { routing_key: values.key, payload: values.body, payload_encoding: "string", properties });
            if (routed) say("The message is published.");
            else replace(result, problem(new api.ApiError(0, "The message reached no queue.", "Bind a queue with a matching routing key, or correct the key.")));
            changed();
        },
    });
    const element = section("Publish", { note: "Send one message by hand." }, h("div", { class: "panel" }, panel, result));
    element.dataset.own = "";
    return element;
}
