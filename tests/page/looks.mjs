// Many queues, every page under the checker of accessibility, light and dark, wide and narrow.
import { accessibility, claim, expect, open, shoot, signIn, until } from "./lab.mjs";

const QUEUE_COUNT = Number(process.env.PAGE_QUEUES ?? 10_000);
const PAGES = {
    overview: "/", queues: "/queues", queue: "/queues/%2F/many.00007", exchanges: "/exchanges", exchange: "/exchanges/%2F/amq.topic", connections: "/connections", channels: "/channels",
    swarms: "/swarms", files: "/files", nodes: "/nodes", payloads: "/payloads", users: "/users", user: "/users/guest", vhosts: "/vhosts", vhost: "/vhosts/%2F", policies: "/policies", limits: "/limits",
    definitions: "/definitions", log: "/log",
};

export async function scenario(browser, lab) {
    const page = await browser.window();
    const queues = Array.from({ length: QUEUE_COUNT }, (_, number) => ({ name: `many.${String(number).padStart(5, "0")}`, vhost: "/", durable: true, auto_delete: false, arguments: {} }));
    await lab.api("POST", "/definitions", { queues });
    for (let number = 0; number < 5; number += 1) await lab.api("POST", "/exchanges/%2F/amq.default/publish", { routing_key: "many.00007", payload: "x", payload_encoding: "string", properties: {} });
    await signIn(page, lab);
    await claim(`with ${QUEUE_COUNT} queues one page of them is asked for and shown`, async () => {
        /** @type {number[]} */
        const sizes = [];
        page.on("response", async (response) => {
            if (response.url().includes("/api/queues?")) sizes.push((await response.body().catch(() => "")).length);
        });
        const begin = Date.now();
        await open(page, "/queues");
        await page.getByText(`${QUEUE_COUNT.toLocaleString("en")} in all`).waitFor();
        const took = Date.now() - begin;
        expect(await page.locator("tbody tr").count() === 50, "50 rows");
        await until("an answer was measured", () => sizes.length > 0);
        expect(Math.max(...sizes) < 100_000, `a page of ${Math.max(...sizes)} bytes`);
        return `${took} ms, ${Math.max(...sizes)} bytes`;
    });
    await claim("the broker sorts, filters and turns pages, and the address keeps it", async () => {
        await page.getByRole("button", { name: "Ready" }).click();
        await until("the fullest is first", async () => (await page.locator("tbody tr").first().textContent())?.startsWith("many.00007"));
        await page.getByRole("button", { name: "Next page" }).click();
        await page.getByText(/Page 2 of/).waitFor();
        await page.reload();
        await page.getByText(/Page 2 of/).waitFor();
        await page.getByRole("searchbox").fill("many.0123");
        await page.getByText(`${Math.min(10, QUEUE_COUNT)} of`).waitFor();
        await page.getByLabel("Regex").check();
        await page.getByRole("searchbox").fill("^many\\.0000[1-3]$");
        await page.getByText(/^3 of/).waitFor();
        await page.getByRole("searchbox").fill("(");
        await page.getByText(/no regular expression/).waitFor();
    });
    await claim("an update moves neither focus nor what is being written", async () => {
        await open(page, "/queues/%2F/many.00007");
        const body = page.getByRole("region", { name: "Publish", exact: true }).getByLabel("Body");
        await body.fill("half a mess");
        await lab.api("POST", "/exchanges/%2F/amq.default/publish", { routing_key: "many.00007", payload: "y", payload_encoding: "string", properties: {} });
        await page.locator(".stat", { hasText: "Ready" }).filter({ hasText: /^Ready6/ }).waitFor();
        expect(await body.evaluate((element) => element === document.activeElement && element.value === "half a mess"), "it is as it was");
    });
    for (const [name, place] of Object.entries(PAGES)) {
        await claim(`${name}: nothing for the checker of accessibility to find, light and dark`, async () => {
            const found = [];
            await open(page, place);
            await page.waitForLoadState("networkidle").catch(() => {});
            await page.waitForTimeout(400);
            for (const theme of ["light", "dark"]) {
                await page.emulateMedia({ colorScheme: theme });
                await shoot(page, `${name}-${theme}`);
                found.push(...(await accessibility(page)).map((one) => `${theme}: ${one}`));
            }
            await page.emulateMedia({ colorScheme: "light" });
            expect(await page.locator("h1").count() === 1, "one title");
            expect(found.length === 0, found.join("\n"));
        });
    }
    await claim("on a narrow screen nothing is wider than the screen, and the menu opens", async () => {
        await page.setViewportSize({ width: 390, height: 800 });
        const wide = [];
        for (const [name, place] of Object.entries(PAGES)) {
            await open(page, place);
            await page.waitForTimeout(500);
            const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
            if (over > 0) wide.push(`${name} by ${over}`);
            if (["overview", "queues", "queue", "swarms"].includes(name)) await shoot(page, `${name}-narrow`);
        }
        expect(wide.length === 0, wide.join(", "));
        await page.getByRole("button", { name: "Menu" }).click();
        await page.getByRole("link", { name: "Exchanges" }).click();
        await page.getByRole("heading", { name: "Exchanges" }).waitFor();
        await page.setViewportSize({ width: 1440, height: 900 });
    });
    await claim("the chosen colours stay chosen", async () => {
        await open(page, "/");
        await page.getByRole("button", { name: /^Colours: as the system/ }).click();
        await page.getByRole("button", { name: /^Colours: light/ }).click();
        await page.reload();
        await page.getByRole("button", { name: /^Colours: dark/ }).waitFor();
        const background = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
        expect(background === "rgb(15, 17, 19)", background);
    });
    await page.context().close();
}
