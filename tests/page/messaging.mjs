// Signing in, and what one does with queues: declare, publish, see, peek, move, purge, delete; by mouse and by keyboard.
import { claim, expect, open, shoot, signIn, until } from "./lab.mjs";

const HOSTILE = "<img src=x onerror=alert(1)>";

export async function scenario(browser, lab) {
    const page = await browser.window();
    await claim("a wrong password is refused in words, without the browser's own login window", async () => {
        await signIn(page, lab, "guest", "wrong");
        await page.getByRole("alert").filter({ hasText: "Login failed" }).waitFor();
        await shoot(page, "login-refused");
    });
    await claim("guest signs in and sees the overview", async () => {
        await signIn(page, lab);
        await page.getByRole("heading", { name: "Overview" }).waitFor();
        await page.getByText("Nothing is connected yet").waitFor();
        expect(await page.getByRole("img", { name: /Message rates, now/ }).count() === 1, "a chart that says what it shows");
        await shoot(page, "overview-empty");
    });
    await claim("a reload keeps the session, another window has none", async () => {
        await page.reload();
        await page.getByRole("heading", { name: "Overview" }).waitFor();
        const other = await browser.window();
        await other.goto(`${lab.url}/`);
        await other.getByLabel("User name").waitFor();
        await other.context().close();
    });
    await claim("a queue is declared", async () => {
        await page.getByRole("navigation", { name: "Pages" }).getByRole("link", { name: "Queues" }).click();
        await page.getByText("No queues yet").waitFor();
        await shoot(page, "queues-empty");
        await page.getByRole("button", { name: "Add queue" }).click();
        const dialog = page.getByRole("dialog");
        await dialog.getByLabel("Name", { exact: true }).fill("orders");
        await dialog.getByLabel("Most messages").fill("1000");
        await shoot(page, "queue-add", false);
        await dialog.getByRole("button", { name: "Add queue" }).click();
        await page.getByRole("heading", { name: "orders", exact: true }).waitFor();
        const queue = await lab.api("GET", "/queues/%2F/orders");
        expect(queue.durable && queue.arguments["x-max-length"] === 1000, JSON.stringify(queue));
    });
    await claim("a message is published by hand and seen without being taken", async () => {
        const publish = page.getByRole("region", { name: "Publish", exact: true });
        await publish.getByLabel("Body").fill("hello from the page");
        await publish.getByLabel("Headers").fill(JSON.stringify({ trace: HOSTILE }));
        await publish.getByRole("button", { name: "Publish message" }).click();
        await page.getByText("The message is published.").waitFor();
        const messages = page.getByRole("region", { name: "Messages", exact: true });
        await messages.getByRole("button", { name: "Get messages" }).click();
        await messages.getByText("hello from the page").waitFor();
        await messages.getByText(HOSTILE).waitFor();
        expect((await lab.api("GET", "/queues/%2F/orders")).messages_ready === 1, "it still waits");
        await page.locator(".stat", { hasText: "Ready" }).filter({ hasText: /^Ready1/ }).waitFor();
        await shoot(page, "queue-messages");
    });
    await claim("what reaches no queue is said with what to do", async () => {
        const publish = page.getByRole("region", { name: "Publish", exact: true });
        await publish.getByLabel("Routing key").fill("nowhere");
        await publish.getByRole("button", { name: "Publish message" }).click();
        await publish.getByText("The message reached no queue.").waitFor();
        await publish.getByText(/Bind a queue/).waitFor();
    });
    await claim("messages are moved to another queue in their order", async () => {
        for (let number = 0; number < 30; number += 1) {
            await lab.api("POST", "/exchanges/%2F/amq.default/publish", { routing_key: "orders", payload: `number ${number}`, payload_encoding: "string", properties: { delivery_mode: 2 } });
        }
        await lab.api("PUT", "/queues/%2F/archive", { durable: true });
        const move = page.getByRole("region", { name: "Move messages" });
        await move.getByLabel("To queue").fill("nobody");
        await move.getByRole("button", { name: "Move messages" }).click();
        await move.getByText("no queue 'nobody'").waitFor();
        await move.getByLabel("To queue").fill("archive");
        await move.getByLabel("How many").fill("21");
        await move.getByRole("button", { name: "Move messages" }).click();
        await page.getByText("21 messages moved to archive.").first().waitFor();
        const archive = await lab.api("POST", "/queues/%2F/archive/get", { ackmode: "peek", count: 100, encoding: "auto" });
        expect(archive.length === 21 && archive[0].payload === "hello from the page" && archive[20].payload === "number 19", JSON.stringify(archive.map((one) => one.payload)));
        expect((await lab.api("GET", "/queues/%2F/orders")).messages_ready === 10, "the rest stays");
    });
    await claim("a queue is purged only after a question", async () => {
        await page.getByRole("button", { name: "Purge", exact: true }).click();
        await page.getByRole("dialog").getByRole("button", { name: "Cancel" }).click();
        expect((await lab.api("GET", "/queues/%2F/orders")).messages_ready === 10, "not yet");
        await page.getByRole("button", { name: "Purge", exact: true }).click();
        await shoot(page, "queue-purge", false);
        await page.getByRole("dialog").getByRole("button", { name: "Purge queue" }).click();
        await page.getByText("Queue orders is empty.").waitFor();
        expect((await lab.api("GET", "/queues/%2F/orders")).messages_ready === 0, "empty");
    });
    await claim("names that are markup are shown as they are and run nothing", async () => {
        await lab.api("PUT", `/queues/%2F/${encodeURIComponent(HOSTILE)}`, { arguments: { "x-dead-letter-exchange": "\"><script>alert(2)</script>" } });
        await lab.api("PUT", `/exchanges/%2F/${encodeURIComponent(HOSTILE)}`, { type: "topic" });
        await lab.api("POST", `/bindings/%2F/e/${encodeURIComponent(HOSTILE)}/q/${encodeURIComponent(HOSTILE)}`, { routing_key: "javascript:alert(3)", arguments: { "<b>x": "<script>" } });
        await lab.api("PUT", `/users/${encodeURIComponent(HOSTILE)}`, { password: "p", tags: "<u>tag" });
        await lab.api("PUT", `/vhosts/${encodeURIComponent("<script>alert(4)</script>")}`, { description: HOSTILE });
        await lab.api("PUT", `/policies/%2F/${encodeURIComponent(HOSTILE)}`, { pattern: "<i>", definition: { "max-length": 5 }, "apply-to": "queues" });
        for (const place of ["queues", "exchanges", "users", "vhosts", "policies", `queues/%2F/${encodeURIComponent(HOSTILE)}`, `exchanges/%2F/${encodeURIComponent(HOSTILE)}`, `users/${encodeURIComponent(HOSTILE)}`]) {
            await open(page, `/${place}`);
            await page.getByText(HOSTILE).first().waitFor();
        }
        expect(await page.locator("img, script:not([src])").count() === 0, "no element came of a name");
        expect(browser.problems.length === 0, browser.problems.join("\n"));
        await open(page, "/queues/%2F/..");
        await page.getByText("A browser cannot ask for something named “..”.").waitFor();
    });
    await claim("by keyboard alone: sign in, add a queue, publish, delete it", () => byKeyboard(browser, lab));
    await claim("a session that the broker ends leads back to the form", async () => {
        await lab.api("PUT", "/users/temp", { password: "one", tags: "management" });
        const other = await browser.window();
        await signIn(other, lab, "temp", "one");
        await other.getByRole("heading", { name: "Overview" }).waitFor();
        await lab.api("PUT", "/users/temp", { password: "two", tags: "management" });
        await other.getByText("The broker no longer accepts your login").waitFor();
        await other.context().close();
    });
    await claim("who signs out leaves nothing behind", async () => {
        await page.getByRole("button", { name: "Sign out" }).click();
        await page.getByLabel("User name").waitFor();
        expect(await page.evaluate(() => sessionStorage.length) === 0, "the session is forgotten");
        await page.reload();
        await page.getByLabel("User name").waitFor();
    });
    await page.context().close();
}

async function byKeyboard(browser, lab) {
    const page = await browser.window();
    const keys = page.keyboard;
    const focused = () => page.evaluate(() => document.activeElement?.getAttribute("aria-label") || document.activeElement?.labels?.[0]?.textContent || document.activeElement?.textContent || "");
    /** Goes on with Tab until what has the focus is called so. */
    const reach = async (name, key = "Tab") => {
        for (let step = 0; step < 80; step += 1) {
            if (name.test((await focused()).trim())) return;
            await keys.press(key);
        }
        throw new Error(`${key} does not lead to ${name}; last: ${await focused()}`);
    };
    await page.goto(`${lab.url}/`);
    await page.getByLabel("User name").waitFor();
    await reach(/^User name$/);
    await keys.type("guest");
    await keys.press("Tab");
    await keys.type("guest");
    await keys.press("Enter");
    await page.getByRole("heading", { name: "Overview" }).waitFor();
    await keys.press("Tab");
    expect(/Skip to the content/.test(await focused()), `the first stop is the way past the menu, not ${await focused()}`);
    await reach(/^Queues$/);
    await keys.press("Enter");
    await page.getByRole("heading", { name: "Queues" }).waitFor();
    await until("the new page's title has the focus", async () => (await focused()) === "Queues");
    await reach(/^Add queue$/);
    await keys.press("Enter");
    await page.getByRole("dialog").waitFor();
    await reach(/^Name$/);
    await keys.type("typed");
    await keys.press("Enter");
    await page.getByRole("heading", { name: "typed", exact: true }).waitFor();
    await page.getByRole("region", { name: "Publish", exact: true }).waitFor();
    await reach(/^Body$/);
    await keys.type("typed too");
    await reach(/^Publish message$/);
    await keys.press("Enter");
    await page.getByText("The message is published.").waitFor();
    await reach(/^Delete$/, "Shift+Tab");
    await keys.press("Enter");
    await page.getByRole("dialog").waitFor();
    await keys.press("Escape");
    await until("the focus is back where it was", async () => /^Delete$/.test(await focused()));
    await keys.press("Enter");
    await reach(/^Delete queue$/);
    await keys.press("Enter");
    await page.getByText("Queue typed is deleted.").waitFor();
    await page.context().close();
}
