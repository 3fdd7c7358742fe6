// The page's pictograms: strokes on a field of 24, in the colour of the text around them.
// @ts-check
import { svg } from "./dom.js";

/** @type {Record<string, string>} */
const PATHS = {
    overview: "M4 13h6V4H4zM14 20h6v-9h-6zM4 20h6v-3H4zM14 7h6V4h-6z",
    queues: "M4 7h16M4 12h16M4 17h10",
    exchanges: "M4 8h13l-3-3M20 16H7l3 3",
    connections: "M9 7V3M15 7V3M7 7h10v4a5 5 0 0 1-10 0zM12 16v5",
    channels: "M4 6c6 0 6 12 16 12M4 12h16M4 18c6 0 6-12 16-12",
    swarms: "M12 9.500a2.500 2.500 0 1 0 0 5 2.500 2.500 0 0 0 0-5zM5 3.500a1.500 1.500 0 1 0 0 3 1.500 1.500 0 0 0 0-3zM19 3.500a1.500 1.500 0 1 0 0 3 1.500 1.500 0 0 0 0-3zM5 17.500a1.500 1.500 0 1 0 0 3 1.500 1.500 0 0 0 0-3zM19 17.500a1.500 1.500 0 1 0 0 3 1.500 1.500 0 0 0 0-3zM6.200 6.200l4 4M17.800 6.200l-4 4M6.200 17.800l4-4M17.800 17.800l-4-4",
    files: "M6 3h8l4 4v14H6zM14 3v4h4M9 13l2 2 4-4",
    nodes: "M4 5h16v6H4zM4 14h16v6H4zM7.500 8h.01M7.500 17h.01",
    payloads: "M12 3l8 4.500v9L12 21l-8-4.500v-9zM4 7.500l8 4.500 8-4.500M12 12v9",
    users: "M9 11a3.500 3.500 0 1 0 0-7 3.500 3.500 0 0 0 0 7zM2.500 20c0-3.500 3-5.500 6.500-5.500s6.500 2 6.500 5.500M16 4.500a3.500 3.500 0 0 1 0 6M18 15c2 .8 3.500 2.500 3.500 5",
    vhosts: "M4 20V9l8-5 8 5v11M9 20v-6h6v6",
    policies: "M12 3l7 3v5c0 5-3 8-7 10-4-2-7-5-7-10V6zM9 12l2 2 4-4",
    limits: "M4 16a8 8 0 1 1 16 0M12 16l4-5",
    definitions: "M8 4c-3 0-2 4-2 5.500S5 12 4 12c1 0 2 1 2 2.500S5 20 8 20M16 4c3 0 2 4 2 5.500s1 2.500 2 2.500c-1 0-2 1-2 2.500s1 5.500-2 5.500",
    log: "M5 4h14v16H5zM8.500 9h7M8.500 12.500h7M8.500 16h4",
    sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 3v1.500M12 19.500V21M3 12h1.500M19.500 12H21M5.600 5.600l1.100 1.100M17.300 17.300l1.100 1.100M5.600 18.400l1.100-1.100M17.300 6.700l1.100-1.100",
    moon: "M20 14.500A8 8 0 0 1 9.500 4a8 8 0 1 0 10.500 10.500z",
    system: "M4 5h16v11H4zM9 20h6M12 16v4",
    menu: "M4 7h16M4 12h16M4 17h16",
    signout: "M14 4h5v16h-5M10 8l-4 4 4 4M6 12h9",
    search: "M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14zM16 16l4.500 4.500",
    plus: "M12 5v14M5 12h14",
    warning: "M12 4l9 16H3zM12 10v4M12 17h.01",
};

/** The mark of the product. */
export function mark() {
    return svg("svg", { viewBox: "0 0 32 32", class: "mark", "aria-hidden": "true" },
        svg("rect", { width: 32, height: 32, rx: 8 }),
        svg("path", { d: "M8 10v5c0 4.500 3.500 7 8 7s8-2.500 8-7v-5M16 22v-8" }),
        ...[[8, 9], [16, 12], [24, 9]].map(([cx, cy]) => svg("circle", { cx, cy, r: 2.6 })));
}

/** @param {string} name */
export const icon = (name) =>
    svg("svg", { viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true" }, svg("path", { d: PATHS[name] ?? "" }));
