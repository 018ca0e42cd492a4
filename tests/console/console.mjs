// The console in a browser: every page, with and without JavaScript, without findings of axe or violations of the content
// security policy. With SCREENSHOTS=directory it keeps what it saw. Needs SEA_MQ_URL and SEA_MQ_TOKEN, as in .dev/env.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import test, { after, before } from "node:test";
import { chromium } from "playwright-core";

const url = process.env.SEA_MQ_URL ?? "";
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const subscription = `console__s${Date.now()}`;
let browser;
let letter;

async function api(method, path, body) {
    const headers = { Authorization: `Bearer ${process.env.SEA_MQ_TOKEN}`, "Content-Type": "application/json" };
    const answer = await fetch(`${url}/v1${path}`, { method, headers, body: body && JSON.stringify(body) });
    const text = await answer.text();
    assert(answer.ok, `${method} ${path}: ${answer.status} ${text}`);
    return text ? JSON.parse(text) : null;
}

const event = (n) => ({
    context: "orders", aggregate_type: "order", aggregate_id: String(n), event_type: "OrderCreated",
    payload: { order: n, customer: ["Ada", "Grace", "Edsger"][n % 3], total: 42.5 + n },
});

async function until(what, ask) {
    for (let round = 0; round < 300; round++) {
        const found = await ask();
        if (found) return found;
        await new Promise((resolve) => setTimeout(resolve, 100));
    }
    throw new Error(`in time: ${what}`);
}

before(async () => {
    browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });
    // The first event of a context makes its stream.
    await api("POST", "/event-batches", { events: Array.from({ length: 30 }, (_, n) => event(n)) });
    await api("POST", "/subscriptions", { subscription, source: "orders", start_from: "all" });
    await until("the subscription is active", async () => (await api("GET", `/subscriptions/${subscription}`)).state === "active");
    // Some are done, and some become dead letters.
    const leases = await until("messages", async () => {
        const found = (await api("POST", `/subscriptions/${subscription}/leases`, { max: 10, wait: "5s" })).leases;
        return found.length > 3 && found;
    });
    for (const [at, lease] of leases.entries()) {
        if (at < 3) await api("POST", `/leases/${lease.id}/rejections`, { reason: "an order without an address cannot be packed" });
        else await api("POST", `/leases/${lease.id}/completions`);
    }
    // Nobody is there: what is sent is refused by the name.
    await api("POST", "/endpoints", { endpoint: "acme", kind: "webhook", url: "https://acme.invalid/hook", source: "orders" });
    letter = (await api("GET", `/dead-letters?subscription=${subscription}`)).items[0].id;
});

after(async () => {
    await browser?.close();
    await api("DELETE", `/subscriptions/${subscription}`);
    await api("DELETE", "/endpoints/acme?discard_pending=true");
});

/** A context in which somebody has logged in, and what the browser complained of. */
async function loggedIn(options) {
    const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
    const page = await context.newPage();
    const complaints = [];
    page.on("console", (message) => { if (["error", "warning"].includes(message.type())) complaints.push(message.text()); });
    page.on("pageerror", (error) => complaints.push(String(error)));
    await page.goto(`${url}/`);
    await page.getByLabel("Role").fill("developer");
    await page.getByLabel("Password").fill("developer");
    await page.getByRole("button", { name: "Log in" }).click();
    await page.getByRole("heading", { name: "Overview" }).waitFor();
    return { context, page, complaints };
}

const pages = () => [
    ["overview", "/", "Overview"], ["streams", "/streams", "Streams"], ["stream", "/streams/ORDERS_EVENTS", "ORDERS_EVENTS"],
    ["subscriptions", "/subscriptions", "Subscriptions"], ["subscription", `/subscriptions/${subscription}`, subscription],
    ["dead-letters", "/dead-letters", "Dead letters"], ["dead-letter", `/dead-letters/${letter}`, `Dead letter ${letter}`],
    ["contracts", "/contracts", "Contracts"], ["endpoints", "/endpoints", "Endpoints"], ["endpoint", "/endpoints/acme", "acme"],
];

for (const scheme of ["light", "dark"]) {
    for (const javaScriptEnabled of [true, false]) {
        test(`every page is shown, ${scheme}, ${javaScriptEnabled ? "with" : "without"} JavaScript`, async () => {
            const { context, page, complaints } = await loggedIn({ colorScheme: scheme, javaScriptEnabled });
            for (const [name, path, title] of pages()) {
                await page.goto(url + path);
                await page.getByRole("heading", { level: 1, name: title }).waitFor();
                if (javaScriptEnabled) {
                    await page.evaluate(axe);
                    const { violations } = await page.evaluate(() => globalThis.axe.run());
                    assert.deepEqual(violations.map((one) => `${name}: ${one.id} ${one.nodes[0].html}`), []);
                    if (process.env.SCREENSHOTS) await page.screenshot({ path: `${process.env.SCREENSHOTS}/${name}-${scheme}.png`, animations: "disabled" });
                }
            }
            assert.deepEqual(complaints, []);
            await context.close();
        });
    }
}

test("what comes in is shown while one looks", async () => {
    const { context, page, complaints } = await loggedIn({});
    await page.goto(`${url}/streams/ORDERS_EVENTS`);
    await page.waitForTimeout(500);
    await api("POST", "/events", { ...event(4711), aggregate_id: "live-4711" });
    await page.getByText("live-4711").first().waitFor();
    assert.deepEqual(complaints, []);
    await context.close();
});

for (const javaScriptEnabled of [true, false]) {
    test(`a letter is fixed and replayed, and those that match after their number was shown, ${javaScriptEnabled ? "with" : "without"} JavaScript`, async () => {
        const { context, page } = await loggedIn({ javaScriptEnabled });
        const open = (await api("GET", `/dead-letters?subscription=${subscription}`)).items;
        if (javaScriptEnabled) {
            await page.goto(`${url}/dead-letters/${open[0].id}`);
            await page.locator("textarea").fill('{"order": 0, "customer": "Grace"}');
            await page.getByRole("button", { name: "Replay" }).click();
            await page.getByText("Replayed by").waitFor();
            assert.equal((await api("GET", `/dead-letters/${open[0].id}`)).replayed_by, "developer");
        } else {
            await page.goto(`${url}/dead-letters?subscription=${subscription}`);
            await page.getByRole("button", { name: "Replay all that match" }).click();
            await page.getByText(`${open.length} dead letters match`).waitFor();
            await page.getByRole("button", { name: "Replay them" }).click();
            await page.getByText(`${open.length} dead letters were replayed`).waitFor();
            assert.equal((await api("GET", `/dead-letters?subscription=${subscription}`)).items.length, 0);
        }
        await context.close();
    });
}

test("a subscription is paused and goes on, by the keyboard", async () => {
    const { context, page } = await loggedIn({});
    await page.goto(`${url}/subscriptions/${subscription}`);
    await page.getByRole("button", { name: "Pause" }).focus();
    await page.keyboard.press("Enter");
    await page.getByRole("button", { name: "Let it go on" }).waitFor();
    await page.getByRole("button", { name: "Let it go on" }).press("Enter");
    await page.getByRole("button", { name: "Pause" }).waitFor();
    await context.close();
});
