// Begins: takes up a session or asks for one, then shows whatever the address says.
// @ts-check
import * as api from "./api.js";
import { replace } from "./dom.js";
import { forget } from "./history.js";
import { login } from "./login.js";
import { openShell } from "./shell.js";

/** @type {{ close: () => void } | null} */
let shell = null;

/** @param {string} reason */
function showLogin(reason) {
    shell?.close();
    shell = null;
    forget();
    document.title = "Sign in · Warren";
    replace(document.body, login(reason, showShell));
    document.querySelector("input")?.focus();
}

function showShell() {
    shell = openShell();
}

api.watchSession({
    signedOut: showLogin,
    reach: (isReached) => document.documentElement.classList.toggle("unreachable", !isReached),
});
for (const kind of ["pointerdown", "keydown"]) addEventListener(kind, api.touch, { passive: true });

try {
    if (await api.resume()) showShell();
    else showLogin("");
} catch (error) {
    showLogin(error instanceof Error ? error.message : String(error));
}
