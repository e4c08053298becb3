// @ts-check
import { ask } from "../api.js";
import { scatter } from "../chart.js";
import { foreign, h, signs, table } from "../dom.js";
import { count, duration, money, nodeLink, ratio, ratioOf } from "../format.js";
import { t } from "../i18n.js";
import { head, statusTag } from "../parts.js";

/** @type {(context: import("../app.js").Context) => Promise<import("../app.js").Page>} */
export async function page({ query, signal }) {
  const role = query.get("role") === "evaluator" ? "evaluator" : "inference";
  const [nodes, kinds] = await Promise.all([ask("leaderboard", {}, signal), ask("kinds", {}, signal)]);
  const title = t("nodes.title");
  const mine = nodes.filter((/** @type {any} */ node) => node.role === role);
  const rated = mine.filter((/** @type {any} */ node) => node.mean_quality !== null && node.status !== "gone");
  const weights = kinds[0]?.params?.[`${role}_weights`];
  const iso = weights && weights.alpha > 0 ? [0, 0.25, 0.5, 0.75].map((net) => ({ label: net === 0 ? t("nodes.iso.zero") : t("nodes.iso", { net }), at: (/** @type {number} */ cost) => (net + (weights.beta / 1e9) * cost) / (weights.alpha / 1e9) })) : [];
  const plot = rated.length
    ? scatter({
        label: t(`nodes.plot.${role}`),
        x: t("nodes.cost"),
        y: t(`nodes.value.${role}`),
        lines: iso,
        points: rated.map((/** @type {any} */ node) => ({
          x: node.mean_cost / 1e9,
          y: node.mean_quality / 1e9,
          size: node.scored,
          href: `/node/${node.node}`,
          other: node.status !== "active",
          label: t("nodes.point", { node: String(node.node), model: signs(node.model).slice(0, 80), value: ratio(node.mean_quality), cost: ratio(node.mean_cost), tasks: node.scored }),
        })),
      })
    : h("p", { class: "empty" }, t("nodes.none.rated"));
  const list = mine.length
    ? table({
        caption: title,
        rows: mine,
        sorted: 3,
        columns: [
          { label: t("node"), cell: (node) => nodeLink(node.node) },
          { label: t("node.model"), class: "wide", cell: (node) => foreign(node.model, 60) },
          { label: t("node.tasks"), right: true, sort: (node) => node.tasks, cell: (node) => count(node.tasks) },
          { label: t(`nodes.value.${role}`), right: true, sort: (node) => node.mean_quality ?? -1, cell: (node) => ratioOf(node.mean_quality) },
          { label: t("nodes.cost"), right: true, sort: (node) => node.mean_cost ?? 2e9, cell: (node) => ratioOf(node.mean_cost) },
          { label: t("node.latency"), right: true, sort: (node) => node.mean_latency_ms ?? 0, cell: (node) => (node.mean_latency_ms ? duration(node.mean_latency_ms) : h("span", { class: "muted" }, "–")) },
          { label: t("node.missed"), right: true, sort: (node) => node.missed / Math.max(1, node.tasks), cell: (node) => count(node.missed) },
          { label: t("node.earned"), right: true, sort: (node) => BigInt(node.earned), cell: (node) => money(node.earned, { digits: 2 }) },
          { label: t("node.price"), right: true, hidden: role !== "inference", sort: (node) => BigInt(node.price), cell: (node) => money(node.price, { digits: 2 }) },
          { label: t("node.trust"), right: true, hidden: role !== "evaluator", sort: (node) => node.trust, cell: (node) => ratioOf(node.trust) },
          { label: t("node.bonded"), right: true, sort: (node) => BigInt(node.bonded), cell: (node) => money(node.bonded, { digits: 0 }) },
          { label: t("node.status"), sort: (node) => node.status, cell: (node) => statusTag(node.status) },
        ],
      })
    : h("p", { class: "empty" }, t("nodes.none"));
  const choice = h("div", { class: "segments", role: "group", "aria-label": t("node.role") }, ["inference", "evaluator"].map((one) => h("a", { href: one === "inference" ? "/nodes" : "/nodes?role=evaluator", "aria-current": one === role ? "true" : undefined }, t(`roles.${one}`))));
  return { title, content: [head(title, t(`nodes.lead.${role}`), choice), h("div", { class: "panel" }, plot, rated.length ? h("p", { class: "small muted" }, t("nodes.plot.note")) : null), list] };
}
