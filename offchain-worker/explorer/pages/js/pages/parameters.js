// @ts-check
import { ask } from "../api.js";
import { foreign, h, section, table } from "../dom.js";
import { account, ago, amount, count, duration, money, ratio, time, unit } from "../format.js";
import { has, t } from "../i18n.js";
import { head } from "../parts.js";

const MONEY = /^(price_cap|inference_slot_min|evaluator_slot_min|fee_max|keeper_fee|ring_burn|stake_min|stake_cap|audit_bond)$/;
const WEEK_MS = 7 * 86_400_000;

/**
 * A parameter's value, as people read it.
 * @param {string} name
 * @param {any} value
 * @returns {string}
 */
function shown(name, value) {
  if (value === null || value === undefined) return "–";
  if (MONEY.test(name)) return `${amount(String(value))} ${unit.symbol}`;
  if (name.endsWith("_ms")) return duration(Number(value));
  if (name === "rubric_hash") {
    const bytes = Array.isArray(value) ? value.map((byte) => Number(byte).toString(16).padStart(2, "0")).join("") : String(value);
    return /^0*$/.test(bytes) ? t("param.none") : `0x${bytes.slice(0, 12)}…`;
  }
  if (typeof value === "string") return has(`choice.${value}`) ? t(`choice.${value}`) : value;
  if (typeof value === "object") {
    const entries = Object.entries(value);
    if (entries.length === 1 && typeof entries[0][1] === "object") {
      const [[choice, inner]] = entries;
      return `${has(`choice.${choice}`) ? t(`choice.${choice}`) : choice} (${Object.entries(/** @type {any} */ (inner)).map(([key, one]) => `${key} ${shown(key, one)}`).join(", ")})`;
    }
    return entries.map(([key, one]) => `${{ alpha: "α", beta: "β", min_ms: t("param.from"), max_ms: t("param.to") }[key] ?? key} ${shown(key, one)}`).join(", ");
  }
  if (typeof value === "number" && /(share|weight|fee|penalty|floor|initial|tolerance|bound|quorum|trim|eta|up|down|rate|step|alpha|beta)/.test(name)) return value > 1_000 || value === 0 ? ratio(value, value % 1_000_000 ? 6 : 3) : count(value);
  return String(value);
}

/** @type {(context: import("../app.js").Context) => Promise<import("../app.js").Page>} */
export async function page({ signal, status }) {
  const [kinds, changes, auditors, overview] = await Promise.all([ask("kinds", {}, signal), ask("changes", {}, signal), ask("auditors", {}, signal), ask("overview", { days: 1 }, signal).catch((error) => { if (error.status === 404) return null; throw error; })]);
  const now = status.tip?.at ?? Date.now();
  const title = t("parameters.title");
  const pending = changes.filter((/** @type {any} */ one) => one.state === "pending");
  const past = changes.filter((/** @type {any} */ one) => one.state !== "pending");
  /** @param {string} lever */
  const announced = (lever) => pending.find((/** @type {any} */ one) => one.lever === lever);
  /**
   * @param {any} params
   * @param {any} change
   * @param {string} caption
   */
  const list = (params, change, caption) =>
    table({
      caption,
      rows: Object.entries(params),
      columns: [
        { label: t("parameters.name"), cell: ([name]) => h("code", null, name) },
        { label: t("parameters.meaning"), class: "wide", cell: ([name]) => (has(`param.${name}`) ? t(`param.${name}`) : "") },
        { label: t("parameters.value"), right: true, cell: ([name, value]) => {
          const next = change?.[name];
          if (next === undefined || JSON.stringify(next) === JSON.stringify(value)) return shown(name, value);
          return [h("span", { class: "from" }, shown(name, value)), " ", h("span", { class: "to" }, shown(name, next))];
        } },
      ],
    });
  const notices = pending.map((/** @type {any} */ one) => {
    const differ = Object.keys(one.change.params ?? one.change.global ?? {}).filter((name) => JSON.stringify((one.change.params ?? one.change.global)[name]) !== JSON.stringify(one.present?.[name]));
    return h(
      "div",
      { class: "notice warn" },
      h("p", null, h("strong", null, t("parameters.announced", { lever: lever(one.lever) })), " ", one.acts_at > now ? t("parameters.acts", { when: ago(one.acts_at, now) }) : t("parameters.can-act"), " ", time(one.acts_at)),
      differ.length ? h("ul", null, differ.map((name) => h("li", null, h("code", null, name), " ", h("span", { class: "from" }, shown(name, one.present?.[name])), " → ", h("span", { class: "to" }, shown(name, (one.change.params ?? one.change.global)[name]))))) : h("p", { class: "mono small" }, foreign(JSON.stringify(one.change), 400)),
      h("p", { class: "small muted" }, t("parameters.leave", { until: new Date(one.acts_at + WEEK_MS).toLocaleDateString() })),
    );
  });
  const content = [
    head(title, t("parameters.lead")),
    section(t("parameters.pending"), null, null, ...(notices.length ? notices : [h("p", { class: "empty" }, t("parameters.pending.none"))])),
    ...kinds.map((/** @type {any} */ kind) => {
      const block = section(t("parameters.kind", { kind: String(kind.kind) }), t("parameters.kind.note", { version: String(kind.version), tasks: kind.tasks, inference: kind.inference, evaluators: kind.evaluators, reference: ratio(kind.reference) }), null, h("div", { class: "panel" }, list(kind.params, announced(`kind ${kind.kind}`)?.change.params, t("parameters.kind", { kind: String(kind.kind) }))));
      block.id = `kind-${kind.kind}`;
      return block;
    }),
    kinds.length ? null : h("p", { class: "empty" }, t("parameters.kinds.none")),
    overview ? section(t("parameters.global"), t("parameters.global.note"), null, h("div", { class: "panel" }, list(overview.global, announced("global")?.change.global, t("parameters.global")))) : null,
    section(t("parameters.auditors"), t("parameters.auditors.note"), null, auditors.length ? table({ caption: t("parameters.auditors"), rows: auditors, columns: [{ label: t("account"), cell: (one) => account(one.account) }, { label: t("node.status"), cell: (one) => h("span", { class: `tag ${one.appointed ? "good" : ""}` }, one.appointed ? t("auditor.appointed") : t("auditor.dismissed")) }, { label: t("auditor.bond"), right: true, cell: (one) => money(one.bond) }, { label: t("auditor.audits"), right: true, cell: (one) => count(one.audits) }] }) : h("p", { class: "empty" }, t("parameters.auditors.none"))),
    section(t("parameters.past"), null, null, past.length ? table({ caption: t("parameters.past"), rows: past, columns: [{ label: t("parameters.what"), cell: (one) => lever(one.lever) }, { label: t("parameters.announced-at"), right: true, cell: (one) => time(one.at) }, { label: t("parameters.became"), cell: (one) => t(`change.${one.state}`) }, { label: t("parameters.became-at"), right: true, cell: (one) => time(one.state_at) }] }) : h("p", { class: "empty" }, t("parameters.past.none"))),
  ].filter((part) => part !== null);
  if (location.hash.startsWith("#kind-")) setTimeout(() => document.getElementById(location.hash.slice(1))?.scrollIntoView(), 0);
  return { title, content };
}

/** @param {string} name */
function lever(name) {
  const [word, what] = [name.split(" ")[0], name.split(" ").slice(1).join(" ")];
  return t(`lever.${word}`, { what });
}
