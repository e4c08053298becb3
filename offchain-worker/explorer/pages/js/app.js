// @ts-check
// The frame around every page: where one is, search, theme, what the chain is doing; and which page an address means.
import { ask, listen, Refused } from "./api.js";
import { foreign, h, s } from "./dom.js";
import { ago, moment, unit } from "./format.js";
import { load, t } from "./i18n.js";

/**
 * What a page is given, and what it may leave behind.
 * @typedef {{ params: string[], query: URLSearchParams, signal: AbortSignal, status: any, go: (path: string) => void }} Context
 * @typedef {{ title: string, content: Node[], onNews?: (news: any) => void }} Page
 */

/** @type {[RegExp, () => Promise<{ page: (context: Context) => Promise<Page> }>, string][]} */
const routes = [
  [/^\/$/, () => import("./pages/overview.js"), "/"],
  [/^\/tasks$/, () => import("./pages/tasks.js"), "/tasks"],
  [/^\/task\/(\d{1,19})$/, () => import("./pages/task.js"), "/tasks"],
  [/^\/nodes$/, () => import("./pages/nodes.js"), "/nodes"],
  [/^\/node\/(\d{1,10})$/, () => import("./pages/node.js"), "/nodes"],
  [/^\/why(?:\/(\d{1,10}))?$/, () => import("./pages/why.js"), "/why"],
  [/^\/account(?:\/([A-Za-z0-9]{1,80}))?$/, () => import("./pages/account.js"), "/account"],
  [/^\/pools$/, () => import("./pages/pools.js"), "/pools"],
  [/^\/pool\/([A-Za-z0-9]{1,80})$/, () => import("./pages/pool.js"), "/pools"],
  [/^\/parameters$/, () => import("./pages/parameters.js"), "/parameters"],
  [/^\/treasury$/, () => import("./pages/treasury.js"), "/treasury"],
  [/^\/block\/(\d{1,10})$/, () => import("./pages/block.js"), "/"],
];

const nav = ["/", "/tasks", "/nodes", "/account", "/pools", "/parameters", "/treasury", "/why"];

/** After so long without a word the chain counts as away. */
const AWAY_MS = 60_000;

const main = h("main", { id: "main", class: "wrap", tabindex: "-1" });
const banner = h("div", { class: "banner", role: "status", hidden: true });
const live = h("span", { class: "n" });
const dot = h("i", { class: "dot-live" });
const links = h("nav", { class: "nav", id: "nav" });
/** @type {any} */
let status = null;
let listening = false;
/** @type {Page | null} */
let shown = null;
let leaving = new AbortController();
let heardHere = Date.now();

/** Remembers which page is shown. */
let moved = () => {};

/** @param {string} path */
function go(path) {
  history.pushState(null, "", path);
  moved();
  void show(true);
}

/** @param {unknown} error */
function failed(error) {
  const refused = error instanceof Refused ? error : new Refused(0, "error", error instanceof Error ? error.message : String(error));
  const title = refused.status === 404 ? t("error.absent") : refused.code === "offline" ? t("error.offline") : refused.code === "invalid" ? t("error.invalid") : t("error.title");
  return {
    title,
    content: [
      h("div", { class: "head" }, h("h1", { tabindex: "-1" }, title), h("p", { class: "lead" }, refused.code === "offline" ? t("error.offline.more") : foreign(refused.message))),
      h("p", null, h("button", { type: "button", on: { click: () => void show(false) } }, t("error.again"))),
    ],
  };
}

/**
 * Shows the page that the address means.
 * @param {boolean} came whether the reader has come from another page
 */
async function show(came) {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  links.classList.remove("open");
  document.getElementById("menu")?.setAttribute("aria-expanded", "false");
  const path = location.pathname;
  const found = routes.map(([pattern, loader, at]) => ({ match: pattern.exec(path), loader, at })).find(({ match }) => match);
  for (const link of links.querySelectorAll("a")) {
    if (link.getAttribute("href") === found?.at) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const waiting = setTimeout(() => { if (!signal.aborted) main.replaceChildren(h("p", { class: "loading", role: "status" }, t("loading"))); }, 250);
  /** @type {Page} */
  let next;
  try {
    if (!found) throw new Refused(404, "absent", t("error.no-page"));
    if (!status) await greet();
    const { page } = await found.loader().catch(() => { throw new Refused(0, "offline", ""); });
    next = await page({ params: (found.match?.slice(1) ?? []).map((part) => part ?? ""), query: new URLSearchParams(location.search), signal, status, go });
  } catch (error) {
    if (signal.aborted) return;
    next = failed(error);
  } finally {
    clearTimeout(waiting);
  }
  if (signal.aborted) return;
  shown = next;
  document.title = `${next.title} · ${t("brand")}`;
  main.replaceChildren(...next.content);
  main.setAttribute("aria-busy", "false");
  if (came) {
    scrollTo(0, 0);
    const heading = /** @type {HTMLElement | null} */ (main.querySelector("h1"));
    (heading ?? main).focus({ preventScroll: true });
  }
}

/** Asks what network this is. */
async function greet() {
  status = await ask("status");
  unit.symbol = status.network.symbol;
  unit.decimals = status.network.decimals;
  pulse();
}

/** Says how fresh what is shown is. */
function pulse() {
  const now = Date.now();
  dot.classList.toggle("on", listening);
  if (!status) {
    live.replaceChildren(t("status.unknown"));
    return;
  }
  const { tip, heard_at: heard, error } = status;
  live.replaceChildren(tip ? t("status.block", { block: tip.number }) : t("status.empty"));
  live.title = tip ? moment(tip.at) : "";
  // By the server's clock: how long before its last word the chain had been silent, and how long ago that word was by this one.
  const silent = now - heardHere + Math.max(0, status.now - heard);
  let text = "";
  if (!listening && now - heardHere > 5_000) text = t("away.server");
  else if (heard > 0 && (error || silent > AWAY_MS)) text = t("away.chain", { since: ago(heard, now), block: tip?.number ?? 0 });
  banner.hidden = text === "";
  banner.replaceChildren(h("div", { class: "wrap" }, text));
}

function searchBox() {
  const hits = h("ul", { class: "hits", id: "hits", hidden: true });
  const input = h("input", { type: "search", id: "search", placeholder: t("search.hint"), "aria-label": t("search.label"), "aria-controls": "hits", autocomplete: "off", spellcheck: "false", maxlength: "200" });
  let turn = 0;
  let timer = 0;
  const close = () => { hits.hidden = true; };
  /** @param {any} hit */
  const path = (hit) => ({ task: "/task/", node: "/node/", account: "/account/", pool: "/pool/", block: "/block/", kind: "/parameters#kind-" })[/** @type {string} */ (hit.what)] + hit.id;
  const look = async () => {
    const mine = ++turn;
    const q = input.value.trim();
    if (!q) return close();
    /** @type {Node[]} */
    let rows;
    try {
      const found = await ask("search", { q });
      rows = found.length
        ? found.map((/** @type {any} */ hit) => h("li", null, h("a", { href: path(hit) }, h("span", null, t(`search.${hit.what}`)), h("span", null, hit.label ? [`${hit.what === "pool" ? "" : hit.id} `, foreign(hit.label, 80)] : hit.id))))
        : [h("li", null, h("p", { class: "muted" }, t("search.none")))];
    } catch (error) {
      rows = [h("li", null, h("p", { class: "muted", role: "alert" }, error instanceof Refused && error.code === "invalid" ? foreign(error.message) : t("error.offline")))];
    }
    if (mine !== turn) return;
    hits.replaceChildren(...rows);
    hits.hidden = false;
  };
  const form = h("form", { class: "search", role: "search", on: {
    submit: async (/** @type {Event} */ event) => {
      event.preventDefault();
      clearTimeout(timer);
      await look();
      const only = hits.querySelectorAll("a");
      if (only.length === 1) { close(); input.value = ""; go(only[0].getAttribute("href") ?? "/"); } else only[0]?.focus();
    },
    focusout: (/** @type {FocusEvent} */ event) => { if (!form.contains(/** @type {Node | null} */ (event.relatedTarget))) close(); },
    keydown: (/** @type {KeyboardEvent} */ event) => {
      const all = [input, ...hits.querySelectorAll("a")];
      const at = all.indexOf(/** @type {any} */ (document.activeElement));
      if (event.key === "Escape") { close(); input.focus(); }
      else if (event.key === "ArrowDown" && !hits.hidden) { all[Math.min(at + 1, all.length - 1)].focus(); event.preventDefault(); }
      else if (event.key === "ArrowUp" && at > 0) { all[at - 1].focus(); event.preventDefault(); }
    },
    click: (/** @type {Event} */ event) => { if (/** @type {Element} */ (event.target).closest("a")) { close(); input.value = ""; } },
  } }, input, hits);
  input.addEventListener("input", () => { clearTimeout(timer); timer = window.setTimeout(() => void look(), 180); });
  addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement?.tagName ?? "");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) { input.focus(); event.preventDefault(); }
  });
  return form;
}

function themeButton() {
  const moon = s("svg", { viewBox: "0 0 24 24", fill: "none", stroke: "currentColor", "stroke-width": "2", "stroke-linecap": "round", "stroke-linejoin": "round", "aria-hidden": "true" }, s("circle", { cx: 12, cy: 12, r: 4.5 }), s("path", { d: "M12 2v2M12 20v2M4.9 4.9l1.4 1.4M17.7 17.7l1.4 1.4M2 12h2M20 12h2M4.9 19.1l1.4-1.4M17.7 6.3l1.4-1.4" }));
  return h("button", { type: "button", class: "icon", "aria-label": t("theme.switch"), title: t("theme.switch"), on: { click: () => {
    const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    const next = dark ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    try { localStorage.setItem("theme", next); } catch { /* Then it lasts as long as the page does. */ }
  } } }, moon);
}

function mark() {
  return s("svg", { viewBox: "0 0 32 32", "aria-hidden": "true" }, s("rect", { width: 32, height: 32, rx: 7, fill: "#0a6b64" }), s("path", { d: "M7 21.5 12.5 15l4 3.5L25 9", fill: "none", stroke: "#fff", "stroke-width": 3, "stroke-linecap": "round", "stroke-linejoin": "round" }), s("circle", { cx: 25, cy: 9, r: 2.6, fill: "#fff" }));
}

function frame() {
  links.setAttribute("aria-label", t("nav.label"));
  links.append(...nav.map((path) => h("a", { href: path }, t(`nav.${path === "/" ? "overview" : path.slice(1)}`))));
  const menu = h("button", { type: "button", class: "menu", id: "menu", "aria-controls": "nav", "aria-expanded": "false", on: { click: () => {
    menu.setAttribute("aria-expanded", String(links.classList.toggle("open")));
  } } }, t("nav.menu"));
  const header = h("header", { class: "top" }, h("div", { class: "wrap" }, h("a", { class: "brand", href: "/" }, mark(), t("brand")), links, h("span", { class: "grow" }), searchBox(), menu, themeButton()));
  const foot = h("footer", { class: "foot" }, h("div", { class: "wrap" }, h("span", null, dot, live), h("span", { class: "grow" }), h("span", null, t("foot.read-only")), h("a", { href: "/v1/openapi.json", "data-outside": true }, t("foot.api"))));
  const app = document.getElementById("app");
  app?.replaceChildren(h("a", { class: "skip", href: "#main", on: { click: (/** @type {Event} */ event) => { event.preventDefault(); main.focus(); } } }, t("nav.skip")), header, banner, main, foot);
  document.addEventListener("click", (event) => {
    const link = event.target instanceof Element ? event.target.closest("a") : null;
    const path = link?.getAttribute("href");
    if (!link || !path || event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    if (path.startsWith("#") || link.hasAttribute("download") || link.dataset.outside !== undefined) return;
    event.preventDefault();
    go(path);
  });
  // A part of the same page is no other page.
  let at = location.pathname + location.search;
  addEventListener("popstate", () => {
    const now = location.pathname + location.search;
    if (now !== at) void show(true);
    at = now;
  });
  moved = () => { at = location.pathname + location.search; };
}

await load();
frame();
listen(
  (news) => {
    status = news.status;
    heardHere = Date.now();
    pulse();
    shown?.onNews?.(news);
  },
  (now) => {
    // Whoever was away has missed something: what is shown is asked for anew.
    if (now && !listening && shown && Date.now() - heardHere > 5_000) void show(false);
    listening = now;
    if (now) heardHere = Date.now();
    pulse();
  },
);
setInterval(pulse, 5_000);
// The other pages, once this one is there: they are small, and are wanted when the server is away, too.
void show(false).then(() => Promise.allSettled(routes.map(([, loader]) => loader())));
