// The pages in headless Chromium, over made-up histories: as a reader with a mouse, with a keyboard, on a phone, in the dark, with a screen
// reader's eyes (axe); when there is nothing, when the chain is away, when the server is; and with strings that try to break them.
//
//   CHROMIUM=/usr/bin/chromium MADE_UP=…/examples/made_up node --test pages.test.mjs
//   SHOTS=folder: also takes pictures.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { chromium } from "playwright-core";

const here = dirname(fileURLToPath(import.meta.url));
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const shots = process.env.SHOTS;
if (shots) mkdirSync(shots, { recursive: true });

const PAGES = {
  overview: "/", tasks: "/tasks", open: "/tasks?state=open", task: "/task/41", gold: "/task/31", failed: "FAILED", going: "OPEN",
  nodes: "/nodes", evaluators: "/nodes?role=evaluator", node: "/node/3", evaluator: "/node/20", why: "/why", "why-node": "/why/20",
  account: "/account", holder: "HOLDER", owner: "OWNER", pools: "/pools", pool: "POOL", parameters: "/parameters", treasury: "/treasury", block: "/block/60",
};

let browser;

/** Starts a server over a made-up history. */
async function site(...words) {
  const child = spawn(process.env.MADE_UP, ["--listen", "127.0.0.1:0", ...words], { stdio: ["ignore", "pipe", "inherit"] });
  const base = await new Promise((resolve, reject) => {
    child.once("exit", (code) => reject(new Error(`the server ended with ${code}`)));
    child.stdout.once("data", (data) => resolve(String(data).trim()));
  });
  return { base, stop: () => new Promise((resolve) => { child.once("exit", resolve); child.kill("SIGINT"); }) };
}

/** A page whose every complaint is kept. */
async function open(base, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, locale: "en-GB", timezoneId: "UTC", ...options });
  const page = await context.newPage();
  const complaints = [];
  page.on("console", (message) => { if (["error", "warning"].includes(message.type())) complaints.push(message.text()); });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("request", (request) => { if (!request.url().startsWith(base)) complaints.push(`asked ${request.url()}`); });
  page.setDefaultTimeout(10_000);
  return { page, complaints, close: () => context.close() };
}

/** Opens an address and waits until it is shown. */
async function go(page, base, path) {
  await page.goto(base + path);
  await page.locator("main h1").waitFor();
}

/** What axe finds that is serious. */
async function serious(page) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run({ resultTypes: ["violations"] }));
  return violations.filter((one) => ["serious", "critical"].includes(one.impact)).map((one) => `${one.id}: ${one.nodes[0].html} ${one.nodes[0].failureSummary}`);
}

/** The addresses that depend on the history. */
async function paths(base) {
  const ask = async (path) => (await fetch(`${base}/v1/${path}`)).json();
  const [pools, nodes, failed, going] = await Promise.all([ask("pools"), ask("nodes?limit=5"), ask("tasks?state=refunded&limit=1"), ask("tasks?state=open&limit=1")]);
  const pool = pools[0] ? await ask(`pools/${pools[0].pool}`) : null;
  const known = { POOL: `/pool/${pools[0]?.pool}`, HOLDER: `/account/${pool?.members[0].account}`, OWNER: `/account/${nodes.items[0]?.owner}`, FAILED: `/task/${failed.items[0]?.task}`, OPEN: `/task/${going.items[0]?.task}` };
  return Object.fromEntries(Object.entries(PAGES).map(([name, path]) => [name, known[path] ?? path]));
}

before(async () => { browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox"] }); });
after(() => browser.close());

describe("a network with a history", () => {
  let base, stop, all;
  before(async () => { ({ base, stop } = await site("--tasks", "400")); all = await paths(base); });
  after(() => stop());

  for (const [look, options] of Object.entries({ light: { colorScheme: "light" }, dark: { colorScheme: "dark" }, phone: { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true } })) {
    test(`every page, ${look}`, async () => {
      const { page, complaints, close } = await open(base, options);
      for (const [name, path] of Object.entries(all)) {
        await go(page, base, path);
        await page.waitForLoadState("networkidle").catch(() => {});
        assert.deepEqual(complaints, [], `${name} ${path}`);
        assert.deepEqual(await serious(page), [], `${name} ${path}, ${look}`);
        const [scroll, width] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
        assert.ok(scroll <= width, `${name} is ${scroll} wide in ${width}`);
        assert.equal(await page.locator("h1").count(), 1, name);
        assert.ok(!/undefined|NaN|\[object|\bnull\b/.test(await page.locator("main").innerText()), `${name}: ${await page.locator("main").innerText()}`);
        if (shots) await page.screenshot({ path: join(shots, `${name}-${look}.png`), fullPage: true });
      }
      await close();
    });
  }

  test("the formula is shown with the numbers that were paid", async () => {
    const { page, close } = await open(base);
    const explained = await (await fetch(`${base}/v1/tasks/41/explanation`)).json();
    assert.equal(explained.ending, "consensus");
    await go(page, base, "/task/41");
    const text = await page.locator("main").innerText();
    for (const node of explained.nodes) {
      const paid = (BigInt(node.payout) / 10n ** 12n).toString();
      assert.ok(text.includes(paid), `node ${node.node}`);
      if (node.net >= 0) {
        // slot · R/α, rounded down, is what was paid: the line says so with its own numbers.
        const share = (BigInt(node.net) * 10n ** 9n) / BigInt(node.alpha);
        assert.equal((BigInt(node.slot) * share) / 10n ** 9n, BigInt(node.payout));
      }
      const net = (node.net / 1e9).toLocaleString("en-GB", { minimumFractionDigits: 6, maximumFractionDigits: 6 }).replace("-", "−");
      assert.ok(text.includes(net), `R of node ${node.node}: ${net}`);
    }
    assert.equal(await page.locator(".checks .agrees").count(), explained.checks.filter((check) => check.found === "agrees").length);
    assert.equal(await page.locator(".checks .differs").count(), 0);
    await close();
  });

  test("search finds tasks, nodes and accounts, and says what is mistyped", async () => {
    const { page, complaints, close } = await open(base);
    await go(page, base, "/");
    const search = page.getByRole("searchbox");
    await search.fill("41");
    await page.locator(".hits a").first().waitFor();
    assert.match(await page.locator(".hits").innerText(), /Task[\s\S]*41/);
    await search.fill("llama-3.2-3b");
    await page.locator(".hits a", { hasText: "llama-3.2-3b" }).first().waitFor();
    const holder = all.holder.split("/").pop();
    await search.fill(holder);
    await page.locator(".hits a").first().waitFor();
    await search.press("Enter");
    await page.waitForURL(`**${all.holder}`);
    assert.deepEqual(complaints, []);
    const wrong = holder.slice(0, 10) + (holder[10] === "a" ? "b" : "a") + holder.slice(11);
    await search.fill(wrong);
    await page.getByText("checksum does not fit").waitFor();
    await page.locator("#address").fill(wrong);
    await page.getByRole("button", { name: "Look up" }).click();
    await page.locator(".notice.bad", { hasText: "checksum does not fit" }).waitFor();
    await close();
  });

  test("with the keyboard alone", async () => {
    const { page, close } = await open(base);
    await go(page, base, "/");
    const focused = () => page.evaluate(() => document.activeElement?.textContent?.trim() || document.activeElement?.id);
    await page.keyboard.press("Tab");
    assert.equal(await focused(), "Skip to the content");
    await page.keyboard.press("Enter");
    await page.keyboard.press("/");
    assert.equal(await focused(), "search");
    await page.keyboard.type("41");
    await page.locator(".hits a").first().waitFor();
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("Enter");
    await page.waitForURL("**/task/41");
    await page.locator("main h1", { hasText: "Task 41" }).waitFor();
    // Whoever came here by a link is at the new page's head.
    assert.equal(await focused(), "Task 41");
    await page.goBack();
    await page.locator("main h1", { hasText: "The network" }).waitFor();
    // Headers of columns sort.
    await go(page, base, "/nodes");
    const header = page.getByRole("columnheader", { name: "Earned" });
    await header.getByRole("button").focus();
    await page.keyboard.press("Enter");
    assert.equal(await header.getAttribute("aria-sort"), "descending");
    // A point of the plot leads to its node.
    await page.locator(".chart a").first().focus();
    await page.keyboard.press("Enter");
    await page.waitForURL("**/node/*");
    await close();
  });

  test("on a phone the menu opens, and the theme can be switched", async () => {
    const { page, close } = await open(base, { viewport: { width: 390, height: 844 }, colorScheme: "light" });
    await go(page, base, "/");
    assert.equal(await page.getByRole("link", { name: "Pools" }).isVisible(), false);
    await page.getByRole("button", { name: "Menu" }).click();
    await page.getByRole("link", { name: "Pools" }).click();
    await page.waitForURL("**/pools");
    const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const light = await ground();
    await page.getByRole("button", { name: "Switch between light and dark" }).click();
    assert.notEqual(await ground(), light);
    await page.reload();
    await page.locator("main h1").waitFor();
    assert.notEqual(await ground(), light, "it is remembered");
    await close();
  });

  test("a history is exported", async () => {
    const { page, close } = await open(base);
    await go(page, base, all.owner);
    const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("link", { name: "Download CSV" }).click()]);
    const text = readFileSync(await download.path(), "utf8");
    assert.ok(text.startsWith("time_utc,block,"), text.slice(0, 100));
    assert.ok(text.split("\r\n").length > 10);
    await close();
  });

  test("the first paint is quick and the scripts are small", async () => {
    const { page, close } = await open(base);
    await go(page, base, "/");
    const paint = await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime);
    assert.ok(paint < 1_000, `${paint} ms`);
    const files = (folder) => readdirSync(folder, { withFileTypes: true }).flatMap((one) => (one.isDirectory() ? files(join(folder, one.name)) : [join(folder, one.name)]));
    const size = files(process.env.PAGES ?? join(here, "../pages")).filter((file) => file.endsWith(".js")).reduce((sum, file) => sum + gzipSync(readFileSync(file)).length, 0);
    assert.ok(size < 150_000, `${size} bytes`);
    console.log(`first contentful paint ${Math.round(paint)} ms, scripts ${size} bytes gzipped`);
    await close();
  });
});

test("what happens shows by itself", async () => {
  const { base, stop } = await site("--tasks", "60", "--grow", "400");
  const { page, complaints, close } = await open(base);
  await go(page, base, "/");
  const seen = new Set();
  const footer = page.locator(".foot");
  for (let n = 0; n < 40 && seen.size < 4; n += 1) {
    seen.add(`${await page.locator("main").innerText()} ${await footer.innerText()}`);
    await page.waitForTimeout(500);
  }
  assert.ok(seen.size >= 4, `${seen.size} different states`);
  assert.match(await footer.innerText(), /Up to block \d/);
  assert.deepEqual(complaints, []);
  await close();
  await stop();
});

test("an empty network says that it is empty", async () => {
  const { base, stop } = await site("--tasks", "0");
  const { page, complaints, close } = await open(base);
  for (const path of ["/", "/tasks", "/nodes", "/nodes?role=evaluator", "/pools", "/parameters", "/treasury", "/why", "/account"]) {
    await go(page, base, path);
    assert.deepEqual(await serious(page), [], path);
    assert.ok(!/undefined|NaN|\[object/.test(await page.locator("main").innerText()), path);
  }
  // A refused question is a complaint of the browser's own, and an answer all the same.
  assert.deepEqual(complaints.filter((text) => !text.includes("404")), []);
  await go(page, base, "/");
  await page.getByText("Nothing has happened in this network yet.").waitFor();
  if (shots) await page.screenshot({ path: join(shots, "empty-light.png") });
  await close();
  await stop();
});

test("a chain that is away, and a server that is", async () => {
  const { base, stop } = await site("--tasks", "40", "--away");
  const { page, close } = await open(base);
  await go(page, base, "/tasks");
  await page.getByText("The chain has not been heard from").waitFor();
  assert.ok((await page.locator("main tbody tr").count()) > 5, "what was read is shown all the same");
  if (shots) await page.screenshot({ path: join(shots, "away-light.png") });
  await stop();
  await page.getByRole("link", { name: "Treasury" }).click();
  await page.getByText("The server cannot be reached.").first().waitFor();
  assert.equal(await page.getByRole("button", { name: "Try again" }).count(), 1);
  await close();
});

test("what is not there is said", async () => {
  const { base, stop } = await site("--tasks", "20");
  const { page, close } = await open(base);
  for (const [path, words] of [["/task/999999", "There is no such thing"], ["/node/999999", "There is no such thing"], ["/nothing", "There is no such thing"], ["/account/5xyz", "That cannot be asked"]]) {
    await go(page, base, path);
    assert.match(await page.locator("main h1").innerText(), new RegExp(words), path);
  }
  await close();
  await stop();
});

test("strings that try to break the pages are text", async () => {
  const { base, stop } = await site("--tasks", "60", "--hostile");
  const all = await paths(base);
  const { page, complaints, close } = await open(base);
  for (const [name, path] of Object.entries({ ...all, hostile: "/node/1", hostile2: "/node/5", hostile3: "/node/7" })) {
    await go(page, base, path);
    await page.waitForLoadState("networkidle").catch(() => {});
    assert.equal(await page.evaluate(() => document.body.dataset.pwned), undefined, name);
    const made = await page.evaluate(() => ({
      foreign: [...document.querySelectorAll("main img, main script, main iframe, main object, main embed, main base, main style")].length,
      links: [...document.querySelectorAll("a")].map((one) => one.getAttribute("href")).filter((href) => href && !/^[/#]/.test(href)),
      handlers: [...document.querySelectorAll("*")].filter((one) => [...one.attributes].some((attribute) => /^on/i.test(attribute.name))).length,
      marks: /[\u202a-\u202e\u2066-\u2069\u0007\u001b]/.test(document.querySelector("main")?.textContent ?? ""),
      wide: document.documentElement.scrollWidth > innerWidth,
    }));
    assert.deepEqual(made, { foreign: 0, links: [], handlers: 0, marks: false, wide: false }, name);
  }
  assert.deepEqual(complaints, []);
  await go(page, base, "/node/1");
  assert.ok((await page.locator("main").innerText()).includes("<img src=x"), "it is shown as it was written");
  if (shots) { await go(page, base, "/nodes"); await page.screenshot({ path: join(shots, "hostile-light.png"), fullPage: true }); }
  await close();
  await stop();
});
