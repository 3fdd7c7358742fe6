// Who are you?
// @ts-check
import * as api from "./api.js";
import { h } from "./dom.js";
import { mark } from "./icons.js";
import { form, notice } from "./ui.js";

/** @param {string} reason why there is nobody signed in any more @param {() => void} done */
export function login(reason, done) {
    const byPassword = form({
        label: "Sign in", action: "Sign in", keep: true,
        fields: [
            { name: "user", label: "User name", required: true, wide: true, autocomplete: "username" },
            { name: "password", label: "Password", kind: "password", required: true, wide: true, autocomplete: "current-password" },
        ],
        submit: async ({ user, password }) => {
            await api.signIn(user, password);
            done();
        },
    });
    const byToken = form({
        label: "Sign in with a token", action: "Sign in with the token", tone: "", keep: true,
        fields: [{ name: "token", label: "Access token", kind: "password", required: true, wide: true, hint: "A bearer token of OAuth 2, if this broker takes them." }],
        submit: async ({ token }) => {
            await api.signInWithToken(token.trim());
            done();
        },
    });
    return h("main", { class: "login" },
        h("div", { class: "login-card" },
            h("div", { class: "brand" }, mark(), h("h1", null, "Warren")),
            h("p", { class: "lead" }, "Sign in as a user of this broker."),
            reason && notice([reason]),
            byPassword,
            h("details", null, h("summary", null, "Use an access token"), byToken),
            h("p", { class: "hint" }, "The login is kept in this tab until you close it or sign out.",
                location.protocol === "http:" && !/^(localhost|127\.|\[::1\])/.test(location.hostname) ? " This connection is not encrypted: others on the network can read your password. Use HTTPS." : "")));
}
