// The page, as its users meet it. Each scenario has a broker of its own.
import { Browser, Lab, conclude } from "./lab.mjs";
import * as administration from "./administration.mjs";
import * as looks from "./looks.mjs";
import * as messaging from "./messaging.mjs";
import * as transfer from "./transfer.mjs";
import { claim, expect } from "./lab.mjs";

const SCENARIOS = { messaging: messaging.scenario, administration: administration.scenario, looks: looks.scenario, transfer: transfer.scenario };

const wanted = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(SCENARIOS);
const browser = await Browser.start();
try {
    for (const name of wanted) {
        console.log(`--- ${name}`);
        const lab = new Lab();
        try {
            await claim(`${name}: a broker runs`, () => lab.broker().then(() => ""));
            await SCENARIOS[name](browser, lab);
        } finally {
            const panicked = await lab.end();
            await claim(`${name}: nothing panicked`, () => expect(panicked.length === 0, panicked.join(", ")));
        }
        await claim(`${name}: the page had no error and asked for nothing that its policy forbids`, () => {
            expect(browser.problems.length === 0, browser.problems.join("\n"));
        });
        browser.problems.length = 0;
    }
} finally {
    await browser.program.close();
}
conclude();
