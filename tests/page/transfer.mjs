// A real file, sent to real nodes, followed on the page to its end.
import fs from "node:fs";
import path from "node:path";
import { accessibility, claim, expect, open, shoot, signIn, sleep, until } from "./lab.mjs";

const FILE_BYTES = 128 << 20;
// So that a fast machine does not send all of it in the moments in which the sender runs.
const UP_RATE = "16MiB/s";
const NODES = ["edge1", "edge2", "edge3"];

export async function scenario(browser, lab) {
    const page = await browser.window();
    const nodes = NODES.map((name) => lab.node(name, "sites"));
    const file = path.join(lab.folder, "update.img");
    fs.writeFileSync(file, Buffer.alloc(FILE_BYTES, 0).map((_, index) => (index * 2654435761) >>> 24));
    await signIn(page, lab);
    await page.getByRole("heading", { name: "Overview" }).waitFor();
    await claim("nodes show as on line", async () => {
        await open(page, "/nodes");
        for (const name of NODES) await page.getByRole("row", { name: new RegExp(`^${name} on line`) }).waitFor();
        await shoot(page, "nodes-online");
    });
    const sender = lab.start("sender", "send", "--broker", lab.amqp, "--group", "sites", "--seed-for", "300s", "--peer-listen", "127.0.0.1:0", "--up-rate", UP_RATE, file);
    const heldOf = (name) => page.locator(".machine", { has: page.getByRole("heading", { name, exact: true }) }).locator("canvas").getAttribute("data-held").then(Number);
    const pieceCount = Number(await until("the file is known", async () => (await lab.api("GET", "/swarm/files"))[0]?.piece_count));
    // From here on the sender gets to run for moments only, so that the page sees the middle and not the ends alone.
    sender.kill("SIGSTOP");
    await claim("the piece maps of the nodes fill up while the file comes", async () => {
        await open(page, "/swarms");
        await page.getByRole("link", { name: "update.img" }).click();
        await page.getByRole("heading", { name: "update.img" }).waitFor();
        const seen = new Set();
        for (let turn = 0; turn < 60 && sender.exitCode === null; turn += 1) {
            sender.kill("SIGCONT");
            await sleep(60);
            sender.kill("SIGSTOP");
            await sleep(600);
            const held = await heldOf("edge1").catch(() => NaN);
            if (held > 0 && held < pieceCount) {
                seen.add(held);
                if (seen.size === 1) await shoot(page, "swarm-filling");
                if (seen.size >= 3) break;
            }
        }
        sender.kill("SIGCONT");
        expect(seen.size >= 2, `states between nothing and everything: ${[...seen].join(", ")} of ${pieceCount}`);
        expect([...seen].every((held, index, all) => index === 0 || held > all[index - 1]), `it only fills: ${[...seen].join(", ")}`);
        return `${[...seen].join(", ")} of ${pieceCount} pieces`;
    });
    await claim("it ends with every node complete, and it shows who served whom", async () => {
        await until("all maps are full", async () => (await Promise.all(NODES.map(heldOf))).every((held) => held === pieceCount), 60_000);
        const matrix = page.getByRole("region", { name: "Who serves whom" }).getByRole("table");
        for (const name of NODES) await matrix.getByRole("columnheader", { name }).waitFor();
        await page.locator(".stat", { hasText: "Copies from the origin" }).getByText(/^\d+\.\d\d$/).waitFor();
        // A node has all pieces a moment before it gives the file its name in the inbox.
        const sizeAt = (name) => fs.promises.stat(path.join(lab.folder, `${name}-inbox`, "update.img")).then((file) => file.size, () => undefined);
        await until("every node has the file", async () => (await Promise.all(NODES.map(sizeAt))).every((size) => size === FILE_BYTES));
        await shoot(page, "swarm-complete");
        const found = await accessibility(page);
        expect(found.length === 0, found.join("\n"));
        await page.emulateMedia({ colorScheme: "dark" });
        await shoot(page, "swarm-complete-dark");
        await page.emulateMedia({ colorScheme: "light" });
    });
    await claim("the file's page says what reached whom and when", async () => {
        await open(page, "/files");
        await page.getByRole("link", { name: "update.img" }).click();
        for (const name of NODES) await page.getByRole("row", { name: new RegExp(`^${name} complete`) }).waitFor();
        await shoot(page, "file-complete");
        const found = await accessibility(page);
        expect(found.length === 0, found.join("\n"));
    });
    await claim("a node that fails says why, and is asked to try again", async () => {
        const inbox = path.join(lab.folder, "edge2-inbox");
        fs.rmSync(inbox, { recursive: true });
        const hindered = path.join(lab.folder, "second.bin");
        fs.writeFileSync(hindered, Buffer.alloc(3 << 20, 7));
        const second = lab.start("second", "send", "--broker", lab.amqp, "--group", "sites", "--seed-for", "60s", "--peer-listen", "127.0.0.1:0", hindered);
        await open(page, "/files");
        await page.getByRole("link", { name: "second.bin" }).click();
        const row = page.getByRole("row", { name: /^edge2 failed/ });
        await row.waitFor({ timeout: 60_000 });
        expect((await row.locator(".reason").textContent()).length > 5, "a reason");
        await shoot(page, "file-failed");
        // The node held on to the folder that is gone; one that starts anew knows its failed file.
        nodes[1].kill("SIGTERM");
        await until("edge2 ends", () => nodes[1].exitCode !== null);
        fs.mkdirSync(inbox);
        nodes[1] = lab.node("edge2", "sites");
        await until("edge2 is back", async () => (await lab.api("GET", "/swarm/nodes/%2F/edge2")).online && nodes[1].text().split("Node edge2 ready").length > 2);
        await page.getByRole("button", { name: "Try again on edge2" }).click();
        await page.getByText("edge2: asked to try again.").waitFor();
        await page.getByRole("row", { name: /^edge2 complete/ }).waitFor({ timeout: 60_000 });
        await shoot(page, "file-retried");
        second.kill("SIGTERM");
    });
    await claim("a channel shows what was delivered on it", async () => {
        const delivered = (await lab.api("GET", "/channels")).filter((channel) => channel.message_stats.deliver_get > 0);
        expect(delivered.length >= NODES.length, `${delivered.length} channels`);
        await open(page, "/channels");
        await page.getByRole("link", { name: delivered[0].name, exact: true }).click();
        await page.getByRole("img", { name: /Message rates, now/ }).waitFor();
        await page.getByText("Redelivered", { exact: true }).first().waitFor();
        await shoot(page, "channel");
    });
    await claim("a node that goes shows as off line", async () => {
        nodes[2].kill("SIGTERM");
        await open(page, "/nodes");
        await page.getByRole("row", { name: /^edge3 off line/ }).waitFor({ timeout: 90_000 });
        await shoot(page, "nodes-offline");
    });
    await page.context().close();
}
