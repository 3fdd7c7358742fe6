// One connection: whose it is, what it moves, and ending it.
// @ts-check
import * as api from "./api.js";
import { chart } from "./chart.js";
import { channelColumns } from "./channels.js";
import { state } from "./connections.js";
import { h } from "./dom.js";
import * as format from "./format.js";
import { note, samples } from "./history.js";
import { go } from "./router.js";
import { table } from "./table.js";
import { button, empty, facts, formDialog, json, say, section, stat } from "./ui.js";

const INTERVAL_MS = 5_000;

/** @param {import("./shell.js").View} view */
export default function connection(view) {
    const { name } = view.params;
    const path = api.at`/connections/${name}`;
    const close = button("Close", () => closeIt(name, path), { tone: "warnable" });
    view.head(name, { kind: "Connection", back: ["Connections", "#/connections"], actions: close });
    const traffic = chart({ title: "Traffic", series: ["From client", "To client"], format: format.byteRate, size: "bytes", least: 1024 });
    const series = `connection ${name}`;
    traffic.show(samples(series));
    /** @type {{ at: number, received: number, sent: number } | null} */
    let last = null;
    view.poll(INTERVAL_MS, async () => {
        const [one, channels] = await Promise.all([api.get(path, {}, view.signal), api.get(`${path}/channels`, { page: 1, page_size: 100 }, view.signal)]);
        const now = { at: performance.now(), received: one.recv_oct, sent: one.send_oct };
        if (last) {
            const seconds = (now.at - last.at) / 1000;
            traffic.show(note(series, [Math.max(0, now.received - last.received) / seconds, Math.max(0, now.sent - last.sent) / seconds]));
        }
        last = now;
        view.show(
            h("div", { class: "stats", dataset: { key: "stats" } },
                stat("From client", format.bytes(one.recv_oct)), stat("To client", format.bytes(one.send_oct)), stat("Channels", format.count(one.channels)), stat("Connected", format.duration(Date.now() - one.connected_at))),
            h("div", { class: "charts", dataset: { key: "charts" } }, traffic.element),
            section("Channels", {}, channels.items.length === 0 ? empty("No channels", "The client has opened none yet.") : table("Channels", channelColumns(), channels.items, (channel) => channel.name)),
            section("Details", {}, h("div", { class: "panel" }, facts([
                ["State", state(one.state)], ["User", one.user], ["Virtual host", one.vhost], ["Protocol", one.protocol], ["Login", one.auth_mechanism],
                ["Client", `${one.peer_host}:${one.peer_port}`], ["Server", `${one.host}:${one.port}`], ["TLS", one.ssl ? `${one.ssl_protocol} ${one.ssl_cipher ?? ""}` : "no"],
                ["Certificate", one.peer_cert_subject ?? "–"], ["Heartbeat", one.timeout === 0 ? "off" : `${one.timeout} s`], ["Largest frame", format.bytes(one.frame_max)], ["Channels at most", format.count(one.channel_max)],
            ]))),
            section("What the client says of itself", {}, json(one.client_properties)),
        );
    });
}

/** @param {string} name @param {string} path */
function closeIt(name, path) {
    formDialog(`Close ${name}?`, {
        action: "Close connection", tone: "danger",
        lead: "Unacknowledged messages go back to their queues. A client that reconnects by itself will be back at once.",
        fields: [{ name: "reason", label: "Reason", wide: true, hint: "The client is told this." }],
        submit: async ({ reason }) => {
            await api.remove(path, undefined, reason === "" ? {} : { "x-reason": reason.replace(/[^ -~]/g, "?") });
            say("The connection is closed.");
            go("#/connections");
        },
    });
}
