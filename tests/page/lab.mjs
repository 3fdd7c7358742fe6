// What a test of the page stands on: a broker, nodes and a browser of its own, and how claims are counted.
import { spawn } from "node:child_process";
import { createRequire } from "node:module";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";

const { WARREN, CHROMIUM, SCREENSHOTS, PAGE_PACKAGES } = process.env;
const require = createRequire(`${PAGE_PACKAGES}/package.json`);
const { chromium } = require("playwright-core");
const AXE = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const WAIT_MS = Number(process.env.PAGE_WAIT_MS ?? 30_000);

export const sleep = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

let passed = 0;
let failed = 0;

/** Tries one claim and says how it went. */
export async function claim(words, run) {
    try {
        const note = await run();
        passed += 1;
        console.log(`ok: ${words}${note ? ` (${note})` : ""}`);
    } catch (error) {
        failed += 1;
        console.log(`FAILED: ${words}\n    ${String(error.stack ?? error).split("\n").slice(0, 12).join("\n    ")}`);
    }
}

/** The last line, and the exit code. */
export function conclude() {
    console.log(`${passed} passed, ${failed} failed`);
    process.exitCode = failed === 0 && passed > 0 ? 0 : 1;
}

export function expect(isSo, words) {
    if (!isSo) throw new Error(words);
}

/** Waits until something is so and gives what that was. */
export async function until(words, isSo, waitMs = WAIT_MS) {
    const end = Date.now() + waitMs;
    let last;
    while (Date.now() < end) {
        try {
            last = await isSo();
            if (last) return last;
        } catch (error) {
            last = error;
        }
        await sleep(50);
    }
    throw new Error(`never so within ${waitMs} ms: ${words} (last: ${last})`);
}

/** A folder and the processes in it, all of which end with the test. */
export class Lab {
    folder = fs.mkdtempSync(path.join(os.tmpdir(), "warren-page-"));
    processes = [];

    /** Starts the program and gives the process, with what it printed so far as `text()`. */
    start(name, ...args) {
        const out = path.join(this.folder, `${name}.log`);
        const file = fs.openSync(out, "a");
        const child = spawn(WARREN, args, { cwd: this.folder, stdio: ["ignore", file, file], env: { ...process.env, NO_COLOR: "1" } });
        fs.closeSync(file);
        child.name = name;
        child.text = () => fs.readFileSync(out, "utf8");
        this.processes.push(child);
        return child;
    }

    async broker() {
        const broker = this.start("broker", "serve", "--data-dir", path.join(this.folder, "data"), "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--peer-listen", "127.0.0.1:0");
        await until("the broker has started", () => broker.text().includes("Server startup complete"));
        const portOf = (words) => broker.text().match(new RegExp(`${words} listening on .*:(\\d+)`))[1];
        this.amqp = `amqp://guest:guest@127.0.0.1:${portOf("AMQP")}/%2F`;
        this.url = `http://127.0.0.1:${portOf("HTTP")}`;
        return broker;
    }

    /** Another broker with these arguments too; gives its address for HTTP. */
    async second(...args) {
        const broker = this.start("second-broker", "serve", "--data-dir", path.join(this.folder, "second-data"), "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--peer-listen", "127.0.0.1:0", ...args);
        await until("the second broker has started", () => broker.text().includes("Server startup complete"));
        return `http://127.0.0.1:${broker.text().match(/HTTP listening on .*:(\d+)/)[1]}`;
    }

    node(name, group) {
        const folder = path.join(this.folder, name);
        return this.start(name, "node", "--broker", this.amqp, "--name", name, "--group", group, "--data-dir", `${folder}-data`, "--inbox", `${folder}-inbox`, "--peer-listen", "127.0.0.1:0");
    }

    /** Asks the management API directly. */
    async api(method, path_, body) {
        const response = await fetch(`${this.url}/api${path_}`, {
            method,
            headers: { authorization: `Basic ${btoa("guest:guest")}`, "content-type": "application/json" },
            body: body === undefined ? undefined : JSON.stringify(body),
        });
        const text = await response.text();
        if (!response.ok) throw new Error(`${method} ${path_}: ${response.status} ${text}`);
        return text === "" ? null : JSON.parse(text);
    }

    /** Ends everything; a process that panicked is said. */
    async end() {
        for (const child of this.processes) {
            if (child.exitCode === null && child.signalCode === null) {
                child.kill("SIGCONT");
                child.kill("SIGTERM");
                await Promise.race([new Promise((done) => child.once("exit", done)), sleep(10_000)]);
                if (child.exitCode === null && child.signalCode === null) child.kill("SIGKILL");
            }
        }
        const panicked = this.processes.filter((child) => child.text().includes("panicked at"));
        for (const child of panicked) console.log(`${child.name}:\n${child.text()}`);
        fs.rmSync(this.folder, { recursive: true, force: true });
        return panicked.map((child) => child.name);
    }
}

/** A browser in which every error of the page is noted. */
export class Browser {
    problems = [];

    static async start() {
        const browser = new Browser();
        browser.program = await chromium.launch({
            executablePath: CHROMIUM, headless: true,
            args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
        });
        return browser;
    }

    /** A new window with nothing remembered. */
    async window({ colorScheme = "light", width = 1440, height = 900 } = {}) {
        const context = await this.program.newContext({ colorScheme, viewport: { width, height }, acceptDownloads: true });
        const page = await context.newPage();
        page.setDefaultTimeout(WAIT_MS);
        page.on("pageerror", (error) => this.problems.push(`error: ${error.message}`));
        page.on("console", (message) => {
            // A refused request is also said on the console; the page shows it itself.
            if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) this.problems.push(`console: ${message.text()}`);
        });
        page.on("dialog", (dialog) => {
            this.problems.push(`a dialog: ${dialog.message()}`);
            dialog.dismiss();
        });
        return page;
    }
}

/** Signs in by the form. */
export async function signIn(page, lab, user = "guest", password = "guest") {
    await page.goto(`${lab.url}/`);
    await page.getByLabel("User name").fill(user);
    await page.getByLabel("Password").fill(password);
    await page.getByRole("button", { name: "Sign in", exact: true }).click();
}

export async function open(page, hash) {
    await page.evaluate((to) => { location.hash = to; }, hash);
}

export const shoot = (page, name, fullPage = true) => page.screenshot({ path: path.join(SCREENSHOTS, `${name}.png`), fullPage });

/** What a checker of accessibility finds wrong, in words. */
export async function accessibility(page) {
    await page.evaluate(AXE);
    const { violations } = await page.evaluate(() => globalThis.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
    return violations.map((one) => `${one.id}: ${one.help}: ${one.nodes.slice(0, 3).map((node) => `${node.html.slice(0, 160)} [${(node.any[0] ?? node.all[0] ?? node.none[0])?.message ?? ""}]`).join(" | ")}`);
}
