// Users, permissions, virtual hosts, policies, limits, definitions, the log; and who sees what.
import fs from "node:fs";
import { claim, expect, open, shoot, signIn } from "./lab.mjs";

export async function scenario(browser, lab) {
    const page = await browser.window();
    await signIn(page, lab);
    await page.getByRole("heading", { name: "Overview" }).waitFor();
    const dialog = page.getByRole("dialog");
    await claim("a broker whose confirms do not wait for the disk says so, and another does not", async () => {
        const row = (on) => on.getByRole("group", { name: "Node", exact: true });
        await row(page).getByText("the disk", { exact: true }).waitFor();
        expect(await page.getByText("Confirms do not wait for the disk").count() === 0, "no warning");
        const url = await lab.second("--sync", "os");
        const other = await browser.window();
        await signIn(other, { url });
        await other.getByText("Confirms do not wait for the disk").waitFor();
        await row(other).getByText("nothing", { exact: true }).waitFor();
        await shoot(other, "overview-sync-os");
        await other.context().close();
    });
    await claim("a virtual host and a user with a permission in it are added", async () => {
        await open(page, "/vhosts");
        await page.getByRole("button", { name: "Add virtual host" }).click();
        await dialog.getByLabel("Name", { exact: true }).fill("shop");
        await dialog.getByRole("button", { name: "Add virtual host" }).click();
        await page.getByRole("heading", { name: "shop" }).waitFor();
        await open(page, "/users");
        await page.getByRole("button", { name: "Add user", exact: true }).click();
        await dialog.getByLabel("Name", { exact: true }).fill("alice");
        await dialog.getByLabel("Password", { exact: true }).fill("secret");
        await dialog.getByLabel(/^management/).check();
        await shoot(page, "user-add", false);
        await dialog.getByRole("button", { name: "Add user", exact: true }).click();
        await page.getByRole("heading", { name: "alice", exact: true }).waitFor();
        const permissions = page.getByRole("region", { name: "Permissions", exact: true });
        await permissions.getByText("Add or change").click();
        await permissions.getByLabel("Virtual host", { exact: true }).fill("shop");
        await permissions.getByLabel("Configure", { exact: true }).fill("^a");
        await permissions.getByRole("button", { name: "Set permission" }).click();
        await permissions.getByRole("button", { name: "Revoke permission of alice in shop" }).waitFor();
        const right = await lab.api("GET", "/permissions/shop/alice");
        expect(right.configure === "^a" && right.read === ".*", JSON.stringify(right));
        await shoot(page, "user");
    });
    await claim("a change of tags keeps the password", async () => {
        await page.getByRole("button", { name: "Change", exact: true }).click();
        await dialog.getByLabel(/^monitoring/).check();
        await dialog.getByRole("button", { name: "Save" }).click();
        await dialog.waitFor({ state: "detached" });
        const other = await browser.window();
        await signIn(other, lab, "alice", "secret");
        await other.getByRole("heading", { name: "Overview" }).waitFor();
        expect(await other.getByRole("link", { name: "Users" }).count() === 0, "no page that she may not use");
        expect(await other.getByRole("link", { name: "Swarms" }).count() === 1, "and those that she may");
        await open(other, "/users");
        await other.getByText("Not administrator user").waitFor();
        await other.getByText("Ask an administrator").waitFor();
        await other.context().close();
    });
    await claim("a policy is set, and what is wrong with one is said", async () => {
        await open(page, "/policies");
        await page.getByRole("button", { name: "Add policy" }).click();
        await dialog.getByLabel("Name", { exact: true }).fill("short");
        await dialog.getByLabel("Pattern", { exact: true }).fill("^orders");
        await dialog.getByLabel("Definition", { exact: true }).fill('{"max-length": "many"}');
        await dialog.getByRole("button", { name: "Add policy" }).click();
        await dialog.getByRole("alert").filter({ hasText: '<<"many">>' }).waitFor();
        await dialog.getByLabel("Definition", { exact: true }).fill('{"max-length": 10}');
        await dialog.getByRole("button", { name: "Add policy" }).click();
        await dialog.waitFor({ state: "detached" });
        const policy = await lab.api("GET", "/policies/%2F/short");
        expect(policy.definition["max-length"] === 10, JSON.stringify(policy));
    });
    await claim("a limit is set and lifted", async () => {
        await open(page, "/limits");
        const users = page.getByRole("region", { name: "Users", exact: true });
        await users.getByText("Add or change").click();
        await users.getByLabel("User", { exact: true }).fill("alice");
        await users.getByLabel("At most", { exact: true }).fill("7");
        await users.getByRole("button", { name: "Set limit" }).click();
        await users.getByRole("button", { name: "Lift the limit max-connections of alice" }).waitFor();
        await shoot(page, "limits");
        await users.getByRole("button", { name: "Lift the limit max-connections of alice" }).click();
        await users.getByText("No limits").waitFor();
    });
    await claim("definitions go out as a file and come in again", async () => {
        await lab.api("PUT", "/queues/shop/kept", { durable: true });
        await open(page, "/definitions");
        const downloading = page.waitForEvent("download");
        await page.getByRole("button", { name: "Download" }).click();
        const file = `${lab.folder}/definitions.json`;
        await (await downloading).saveAs(file);
        const document = JSON.parse(fs.readFileSync(file, "utf8"));
        expect(document.queues.some((queue) => queue.name === "kept"), "the queue is in it");
        await lab.api("DELETE", "/queues/shop/kept");
        await page.getByLabel("Definitions file", { exact: true }).setInputFiles(file);
        await page.getByRole("button", { name: "Check the file" }).click();
        await dialog.getByText("queues").waitFor();
        await shoot(page, "definitions-import", false);
        await dialog.getByRole("button", { name: "Import" }).click();
        await page.getByText("The definitions are imported.").waitFor();
        await lab.api("GET", "/queues/shop/kept");
    });
    await claim("the log's end is there and grows", async () => {
        await open(page, "/log");
        await page.getByRole("log").getByText("a user is deleted").waitFor({ state: "detached" });
        await lab.api("DELETE", "/users/alice");
        await page.getByRole("log").getByText("a user is deleted").waitFor();
        await shoot(page, "log");
    });
    await page.context().close();
}
