// @ts-check
// Numbers, times and addresses, for people. Amounts are integers of any size: nothing here makes floating-point numbers of money but for a plot.
import { h } from "./dom.js";
import { language, t } from "./i18n.js";

/** The chain's money; set once the server has told it. */
export const unit = { symbol: "UNIT", decimals: 12 };

const BILLION = 1e9;

/**
 * An amount in whole units, cut after so many decimals; all of them where `digits` is not given.
 * @param {string | bigint} amount in the smallest unit
 * @param {number} [digits]
 */
export function amount(amount, digits) {
  let whole = BigInt(amount);
  const sign = whole < 0n ? "−" : "";
  if (whole < 0n) whole = -whole;
  const scale = 10n ** BigInt(unit.decimals);
  let rest = (whole % scale).toString().padStart(unit.decimals, "0");
  rest = digits === undefined ? rest.replace(/0+$/, "") : rest.slice(0, digits);
  const front = (whole / scale).toLocaleString(language);
  if (digits !== undefined && digits > 0 && whole > 0n && whole / scale === 0n && /^0*$/.test(rest)) {
    // Not nothing, and it must not look like it.
    return `< ${sign}0${point()}${"0".repeat(digits - 1)}1`;
  }
  return sign + front + (rest ? point() + rest : "");
}

/** What stands before decimals. */
function point() {
  return (1.5).toLocaleString(language).replace(/\d/g, "");
}

/**
 * An amount as an element: four decimals, all of them on asking; its unit beside it where `named`.
 * @param {string | bigint} text
 * @param {{ named?: boolean, digits?: number, signed?: boolean }} [options]
 */
export function money(text, { named = false, digits = 4, signed = false } = {}) {
  const sign = signed && BigInt(text) > 0n ? "+" : "";
  return h("span", { class: "n", title: `${amount(text)} ${unit.symbol}` }, sign + amount(text, digits), named ? h("small", null, ` ${unit.symbol}`) : null);
}

/**
 * An amount as a floating-point number of whole units, for a plot.
 * @param {string} text
 */
export function plotted(text) {
  return Number(BigInt(text) / 10n ** BigInt(Math.max(0, unit.decimals - 6))) / 1e6;
}

/**
 * Parts per billion as a number.
 * @param {number | null | undefined} ppb
 * @param {number} [digits]
 */
export function ratio(ppb, digits = 3) {
  if (ppb === null || ppb === undefined) return "–";
  return (ppb / BILLION).toLocaleString(language, { minimumFractionDigits: digits, maximumFractionDigits: digits }).replace("-", "−");
}

/**
 * Parts per billion as an element, all digits on asking.
 * @param {number | null | undefined} ppb
 * @param {number} [digits]
 */
export function ratioOf(ppb, digits = 3) {
  if (ppb === null || ppb === undefined) return h("span", { class: "muted" }, "–");
  return h("span", { class: "n", title: ratio(ppb, 9) }, ratio(ppb, digits));
}

/**
 * Parts per billion as a percentage.
 * @param {number} ppb
 * @param {number} [digits]
 */
export function percent(ppb, digits = 1) {
  return (ppb / BILLION).toLocaleString(language, { style: "percent", minimumFractionDigits: digits, maximumFractionDigits: digits }).replace("-", "−");
}

/**
 * A count.
 * @param {number} number
 */
export function count(number) {
  return number.toLocaleString(language);
}

/**
 * A time, to the second, in the reader's own zone.
 * @param {number} at
 */
export function moment(at) {
  return new Date(at).toLocaleString(language, { dateStyle: "medium", timeStyle: "medium" });
}

/**
 * A time as an element.
 * @param {number | null | undefined} at
 * @param {boolean} [short] the day alone
 */
export function time(at, short = false) {
  if (!at) return h("span", { class: "muted" }, "–");
  const date = new Date(at);
  const text = short ? date.toLocaleDateString(language, { dateStyle: "medium" }) : moment(at);
  return h("time", { class: "n", datetime: date.toISOString(), title: `${date.toISOString()}` }, text);
}

/**
 * How long, roughly.
 * @param {number} ms
 */
export function duration(ms) {
  const parts = [[86_400_000, "day"], [3_600_000, "hour"], [60_000, "minute"], [1_000, "second"]];
  for (const [size, name] of /** @type {[number, string][]} */ (parts)) {
    if (ms >= size || name === "second") {
      const value = ms / size;
      const digits = value < 10 && value % 1 >= 0.05 && name !== "second" ? 1 : name === "second" && ms < 60_000 && ms % 1_000 ? 1 : 0;
      return new Intl.NumberFormat(language, { style: "unit", unit: name, unitDisplay: "short", maximumFractionDigits: digits }).format(value);
    }
  }
  return "";
}

/**
 * How long ago, or how soon.
 * @param {number} at
 * @param {number} now
 */
export function ago(at, now) {
  const seconds = Math.round((at - now) / 1_000);
  const format = new Intl.RelativeTimeFormat(language, { numeric: "auto" });
  const size = Math.abs(seconds);
  if (size < 60) return format.format(seconds, "second");
  if (size < 3_600) return format.format(Math.round(seconds / 60), "minute");
  if (size < 86_400) return format.format(Math.round(seconds / 3_600), "hour");
  return format.format(Math.round(seconds / 86_400), "day");
}

/**
 * A day, counted from 1970-01-01 UTC.
 * @param {number} day
 */
export function day(day) {
  return new Date(day * 86_400_000).toLocaleDateString(language, { day: "numeric", month: "short", timeZone: "UTC" });
}

/**
 * An address, shortened, leading to its account's page.
 * @param {string} address
 * @param {{ whole?: boolean, to?: "account" | "pool" }} [options]
 */
export function account(address, { whole = false, to = "account" } = {}) {
  const short = whole ? address : `${address.slice(0, 6)}…${address.slice(-6)}`;
  return h("a", { class: "mono", href: `/${to}/${address}`, title: address }, short);
}

/**
 * A hash, shortened.
 * @param {string} hash
 */
export function hash(hash) {
  return h("code", { title: hash }, `${hash.slice(0, 10)}…${hash.slice(-8)}`);
}

/** @param {number} node */
export function nodeLink(node) {
  return h("a", { class: "n", href: `/node/${node}` }, t("node.n", { node: String(node) }));
}

/** @param {number} task */
export function taskLink(task) {
  return h("a", { class: "n", href: `/task/${task}` }, `#${task}`);
}
