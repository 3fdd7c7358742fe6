// Who is connected.
// @ts-check
import * as api from "./api.js";
import { h } from "./dom.js";
import * as format from "./format.js";
import { link } from "./router.js";
import { list } from "./table.js";
import { badge, empty } from "./ui.js";

/** @param {import("./shell.js").View} view */
export default function connections(view) {
    view.head("Connections");
    view.show(list(view, {
        name: "Connections",
        path: "/connections",
        pathIn: (vhost) => api.at`/vhosts/${vhost}/connections`,
        fields: ["name", "vhost", "user", "state", "ssl", "ssl_protocol", "channels", "recv_oct", "send_oct", "connected_at", "client_properties", "protocol"],
        key: (connection) => connection.name,
        nothing: empty("Nobody is connected", `Point an AMQP client at amqp://${location.hostname}:5672 and it shows here.`),
        columns: [
            { label: "Name", head: true, sort: "name", cell: (connection) => [h("a", { href: link("connections", connection.name) }, connection.name), program(connection)] },
            { label: "Virtual host", sort: "vhost", wide: true, cell: (connection) => connection.vhost },
            { label: "User", sort: "user", cell: (connection) => connection.user },
            { label: "State", sort: "state", cell: (connection) => state(connection.state) },
            { label: "TLS", sort: "ssl", cell: (connection) => (connection.ssl ? badge(connection.ssl_protocol ?? "yes", "good") : badge("no")) },
            { label: "Channels", sort: "channels", number: true, cell: (connection) => format.count(connection.channels) },
            { label: "Received", sort: "recv_oct", number: true, cell: (connection) => format.bytes(connection.recv_oct) },
            { label: "Sent", sort: "send_oct", number: true, cell: (connection) => format.bytes(connection.send_oct) },
            { label: "Since", sort: "connected_at", number: true, wide: true, cell: (connection) => format.time(connection.connected_at) },
        ],
    }));
}

/** @param {string} word */
export const state = (word) => badge(word, word === "running" ? "good" : ["blocked", "blocking", "flow"].includes(word) ? "warn" : "neutral");

/** @param {any} connection */
function program({ client_properties: said = {} }) {
    const words = [said.connection_name, said.product, said.version].filter((word) => typeof word === "string" && word !== "");
    return words.length > 0 && h("small", { class: "below" }, words.join(" "));
}
