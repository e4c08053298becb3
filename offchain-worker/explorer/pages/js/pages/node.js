// @ts-check
import { ask } from "../api.js";
import { bars, line } from "../chart.js";
import { facts, figures, foreign, h, section, table } from "../dom.js";
import { account, amount, count, day, duration, hash, money, moment, percent, plotted, ratio, ratioOf, taskLink, time, unit } from "../format.js";
import { t } from "../i18n.js";
import { growing, head, lineTable, statusTag } from "../parts.js";

/** @type {(context: import("../app.js").Context) => Promise<import("../app.js").Page>} */
export async function page({ params, signal }) {
  const [id] = params;
  const [detail, first] = await Promise.all([ask(`nodes/${id}`, {}, signal), ask(`nodes/${id}/tasks`, { limit: 25 }, signal)]);
  const { node } = detail;
  const title = t("node.title", { node: String(node.node) });
  const evaluator = node.role === "evaluator";
  const days = [...detail.days].reverse();
  const scored = days.filter((one) => one.mean_quality !== null);
  const trust = [...detail.trust].reverse();
  const missed = node.tasks ? percent((node.missed / node.tasks) * 1e9) : "–";
  const tasks = growing({
    first,
    more: (next) => ask(`nodes/${id}/tasks`, { limit: 50, before: next }, signal),
    draw: (items) => lineTable(items, t("node.history")),
    empty: t("node.history.none"),
  });
  const content = [
    head(title, [t(`role.${node.role}`), " · ", foreign(node.model, 80)], [statusTag(node.status), h("a", { class: "button", href: `/why/${node.node}` }, t("node.why"))]),
    node.misses > 0 && node.status !== "gone" ? h("div", { class: "notice warn" }, t("node.misses", { count: node.misses })) : h("span", { hidden: true }),
    figures([
      [t("node.earned"), money(node.earned, { named: true }), detail.earned_per_task ? t("node.per-task", { amount: amount(detail.earned_per_task, 4), unit: unit.symbol }) : null],
      [t(evaluator ? "node.merit" : "node.quality"), ratioOf(node.mean_quality), t("node.cost.note", { cost: ratio(node.mean_cost) })],
      [t("node.tasks"), count(node.tasks), t("node.missed.note", { missed: node.missed, percent: missed })],
      evaluator ? [t("node.trust"), ratioOf(node.trust), t("node.trust.note")] : [t("node.latency"), node.mean_latency_ms ? duration(node.mean_latency_ms) : "–", t("node.latency.note")],
      [t("node.bonded"), money(node.bonded, { named: true, digits: 2 }), t("node.locked.note", { locked: amount(node.locked, 2), unbonding: amount(node.unbonding, 2) })],
      [t("node.slashed"), money(node.slashed, { named: true }), detail.slashed_per_task ? t("node.per-task", { amount: amount(detail.slashed_per_task, 4), unit: unit.symbol }) : null],
    ]),
    h(
      "div",
      { class: "columns" },
      h("div", { class: "panel" }, h("h2", null, t("node.earnings", { unit: unit.symbol })), days.length ? bars({ label: t("node.earnings", { unit: unit.symbol }), series: [t("node.earned"), t("node.slashed")], days: days.map((one) => ({ label: day(one.day), values: [plotted(one.earned), plotted(one.slashed)], shown: [amount(one.earned, 4), amount(one.slashed, 4)] })) }) : h("p", { class: "empty" }, t("chart.none"))),
      h("div", { class: "panel" }, h("h2", null, t(evaluator ? "node.merit.time" : "node.quality.time")), scored.length ? line({ label: t(evaluator ? "node.merit" : "node.quality"), low: 0, high: 1, when: (at) => day(Math.floor(at / 86_400_000)), points: scored.map((one) => ({ at: one.day * 86_400_000, value: one.mean_quality / 1e9, shown: ratio(one.mean_quality) })) }) : h("p", { class: "empty" }, t("chart.none"))),
      evaluator ? h("div", { class: "panel" }, h("h2", null, t("node.trust.time")), trust.length ? line({ label: t("node.trust"), low: 0, high: 1, step: true, when: moment, points: trust.map((one) => ({ at: one.at, value: one.trust / 1e9, shown: ratio(one.trust) })) }) : h("p", { class: "empty" }, t("node.trust.none"))) : null,
      h(
        "div",
        { class: "panel" },
        h("h2", null, t("node.facts")),
        facts([
          [t("node.owner"), account(node.owner)],
          [t("node.operator"), account(node.operator)],
          [t("node.payee"), account(node.payee)],
          [t("node.pool"), detail.pool ? account(detail.pool, { to: "pool" }) : null],
          [t("node.model"), foreign(node.model)],
          [t("node.digest"), hash(node.model_digest)],
          [t("node.endpoint"), node.endpoint ? foreign(node.endpoint) : null],
          [t("node.price"), evaluator ? null : money(node.price, { named: true })],
          [t("node.claimable"), money(node.claimable, { named: true })],
          [t("node.withdrawn"), money(node.withdrawn, { named: true })],
          [t("node.kind"), String(node.kind)],
          [t("node.owed"), evaluator ? [money(node.due, { named: true }), " ", h("span", { class: "small muted" }, t("node.owed.note"))] : null],
          [t("node.record"), node.record === null ? null : ratioOf(node.record)],
          [t("node.registered"), time(node.registered_at)],
        ]),
      ),
    ),
    section(
      t("node.duties"),
      null,
      null,
      detail.duties.length
        ? table({
            caption: t("node.duties"),
            rows: detail.duties,
            columns: [
              { label: t("task"), cell: (duty) => taskLink(duty.task) },
              { label: t("node.duty"), cell: (duty) => t(`duty.${duty.state}`) },
              { label: t("node.due"), right: true, cell: (duty) => time(duty.due) },
            ],
          })
        : h("p", { class: "empty" }, t("node.duties.none")),
    ),
    section(t("node.history"), t(evaluator ? "formula.evaluator" : "formula.inference"), null, tasks.node),
  ];
  return { title, content };
}
