// The broker at a glance.
// @ts-check
import * as api from "./api.js";
import { chart } from "./chart.js";
import { h } from "./dom.js";
import * as format from "./format.js";
import { note, recall, samples } from "./history.js";
import { table } from "./table.js";
import { badge, bar, notice, section, stat } from "./ui.js";

const INTERVAL_MS = 5_000;
const RATES = /** @type {[string, string][]} */ ([["publish", "Published"], ["deliver_get", "Delivered"], ["ack", "Acknowledged"], ["redeliver", "Redelivered"]]);

/** @param {import("./shell.js").View} view */
export default function overview(view) {
    view.head("Overview");
    const queued = chart({ title: "Queued messages", series: ["Ready", "Unacknowledged"], format: format.compact, least: 4 });
    const rates = chart({ title: "Message rates", series: RATES.map(([, name]) => name), format: format.rate, least: 4 });
    const clients = chart({ title: "Connections", series: ["Connections", "Channels", "Consumers"], format: format.compact, least: 4 });
    let memoryLimit = /** @type {number | null} */ (null);
    const memory = chart({ title: "Memory", series: ["In use"], format: format.bytes, size: "bytes", least: 1 << 20, limit: () => memoryLimit });
    let diskLimit = /** @type {number | null} */ (null);
    const disk = chart({ title: "Disk", series: ["Free"], format: format.bytes, size: "bytes", least: 1 << 20, limit: () => diskLimit });
    const swarm = chart({ title: "Swarm traffic", series: ["Sent", "Received"], format: format.byteRate, size: "bytes", least: 1024 });

    view.poll(INTERVAL_MS, async () => {
        const [state, nodes, swarms] = await Promise.all([
            api.get("/overview", { lengths_age: 600, lengths_incr: 5, msg_rates_age: 600, msg_rates_incr: 5 }, view.signal),
            api.may("monitoring") ? api.get("/nodes", {}, view.signal) : [],
            api.may("monitoring") ? api.get("/swarm", {}, view.signal) : null,
        ]);
        const { queue_totals: totals, message_stats: stats, object_totals: objects } = state;
        before(state);
        queued.show(note("overview queued", [totals.messages_ready, totals.messages_unacknowledged]));
        rates.show(note("overview rates", RATES.map(([name]) => stats[`${name}_details`]?.rate)));
        clients.show(note("overview clients", [objects.connections, objects.channels, objects.consumers]));
        const [node] = nodes;
        if (node) {
            memoryLimit = node.mem_limit;
            memory.show(note("overview memory", [node.mem_used]));
            diskLimit = node.disk_free_limit;
            disk.show(note("overview disk", [node.disk_free]));
        }
        if (swarms) swarm.show(note("overview swarm", [swarms.up_rate, swarms.down_rate]));
        view.head("Overview", { lead: `${state.product_name} ${state.product_version} on ${state.node}${node ? `, up ${format.duration(node.uptime)}` : ""}` });
        view.show(
            nodes.map(alarms),
            state.sync === "os" && notice(["Confirms do not wait for the disk (the setting sync is \"os\"): a loss of power loses messages that were confirmed."]),
            h("div", { class: "stats", dataset: { key: "stats" } },
                stat("Ready", format.compact(totals.messages_ready), { note: "waiting for consumers", href: "#/queues" }),
                stat("Unacknowledged", format.compact(totals.messages_unacknowledged), { note: "delivered, not yet done" }),
                stat("Published", format.rate(stats.publish_details?.rate)),
                stat("Delivered", format.rate(stats.deliver_get_details?.rate)),
                stat("Queues", format.compact(objects.queues), { href: "#/queues" }),
                stat("Exchanges", format.compact(objects.exchanges), { href: "#/exchanges" }),
                stat("Connections", format.compact(objects.connections), { href: "#/connections" }),
                stat("Channels", format.compact(objects.channels), { href: "#/channels" })),
            objects.connections === 0 && objects.queues === 0 && totals.messages === 0 ? firstSteps(state) : null,
            h("div", { class: "charts", dataset: { key: "charts" } }, queued.element, rates.element, clients.element, node && [memory.element, disk.element], swarms && swarm.element),
            nodes.length > 0 && section("Node", {}, nodeTable(nodes, state.sync)),
            state.listeners && section("Listeners", {}, table("Listeners", [
                { label: "Protocol", head: true, cell: (row) => row.protocol },
                { label: "Address", cell: (row) => h("code", null, row.ip_address.includes(":") ? `[${row.ip_address}]` : row.ip_address) },
                { label: "Port", number: true, cell: (row) => String(row.port) },
            ], state.listeners, (row) => `${row.protocol} ${row.ip_address} ${row.port}`)),
        );
    });
    for (const [name, one] of /** @type {[string, typeof queued][]} */ ([["queued", queued], ["rates", rates], ["clients", clients], ["memory", memory], ["disk", disk], ["swarm", swarm]])) one.show(samples(`overview ${name}`));
}

/** What the broker remembers of the time before the page was opened. @param {any} state */
function before(state) {
    const series = (/** @type {any[]} */ of) => {
        const [first] = of;
        return (first?.samples ?? []).map((/** @type {any} */ { timestamp }, /** @type {number} */ index) => ({ at: timestamp, values: of.map((one) => one?.samples?.[index]?.sample ?? null) })).reverse();
    };
    const { queue_totals: totals, message_stats: stats } = state;
    if (samples("overview queued").length === 0) recall("overview queued", series([totals.messages_ready_details, totals.messages_unacknowledged_details]));
    if (samples("overview rates").length === 0) {
        // The samples of counters count up: a rate lies between two of them.
        const counted = series(RATES.map(([name]) => stats[`${name}_details`]));
        const rates = counted.slice(1).map((/** @type {any} */ sample, /** @type {number} */ index) => {
            const seconds = (sample.at - counted[index].at) / 1000;
            return { at: sample.at, values: sample.values.map((/** @type {number} */ value, /** @type {number} */ which) => Math.max(0, (value - counted[index].values[which]) / seconds)) };
        });
        recall("overview rates", rates);
    }
}

/** @param {any} node */
function alarms(node) {
    return [
        node.mem_alarm && notice([`${node.name} uses more memory than it may. Publishers wait until consumers catch up, messages are purged, or the watermark is raised.`], "bad"),
        node.disk_free_alarm && notice([`${node.name} has too little free disk space. Publishers wait until there is more: delete queues or payloads that nobody needs, or enlarge the disk.`], "bad"),
    ];
}

/** @param {any[]} nodes @param {"disk" | "os"} sync */
function nodeTable(nodes, sync) {
    return table("Node", [
        { label: "Name", head: true, cell: (node) => node.name },
        { label: "State", cell: (node) => (node.running ? badge("running", "good") : badge("down", "bad")) },
        { label: "Confirms wait for", cell: () => (sync === "os" ? badge("nothing", "warn") : badge("the disk", "good")) },
        { label: "Memory", cell: (node) => level(node.mem_used, node.mem_limit, `Memory of ${node.name}`, node.mem_alarm) },
        { label: "Disk free", cell: (node) => h("span", { class: node.disk_free_alarm ? "bad" : "" }, format.bytes(node.disk_free), h("small", null, ` alarm below ${format.bytes(node.disk_free_limit)}`)) },
        { label: "File descriptors", number: true, cell: (node) => [format.count(node.fd_used), h("small", null, ` of ${format.compact(node.fd_total)}`)] },
        { label: "Processors", number: true, wide: true, cell: (node) => format.count(node.processors) },
        { label: "Up", number: true, cell: (node) => format.duration(node.uptime) },
    ], nodes, (node) => node.name);
}

/** @param {number} used @param {number} limit @param {string} label @param {boolean} isAlarm */
function level(used, limit, label, isAlarm) {
    return h("div", { class: "level" }, h("span", null, format.bytes(used), h("small", null, ` of ${format.bytes(limit)}`)), bar(used / limit, label, isAlarm ? "bad" : ""));
}

/** @param {any} state */
function firstSteps(state) {
    const amqp = (state.listeners ?? []).find((/** @type {any} */ listener) => listener.protocol === "amqp");
    return h("section", { class: "welcome", "aria-label": "First steps", dataset: { key: "first" } },
        h("h2", null, "Nothing is connected yet"),
        h("p", null, "Point any AMQP 0-9-1 client at ", h("code", null, `amqp://${location.hostname}:${amqp?.port ?? 5672}`), ", add a queue on the ", h("a", { href: "#/queues" }, "queues page"),
            ", or send a file to every node with ", h("code", null, "warren send FILE --group all"), "."));
}
