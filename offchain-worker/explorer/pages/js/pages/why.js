// @ts-check
import { ask } from "../api.js";
import { facts, foreign, h, section, table } from "../dom.js";
import { account, count, money, nodeLink, percent } from "../format.js";
import { has, t } from "../i18n.js";
import { growing, head, lineTable, statusTag } from "../parts.js";

/** @type {(context: import("../app.js").Context) => Promise<import("../app.js").Page>} */
export async function page({ params, signal, go }) {
  const [id] = params;
  const title = t("why.title");
  const input = h("input", { id: "why-node", inputmode: "numeric", pattern: "[0-9]{1,10}", required: true, value: id || undefined, autocomplete: "off" });
  const form = h("form", { class: "inline", on: { submit: (/** @type {Event} */ event) => { event.preventDefault(); go(`/why/${input.value.trim()}`); } } }, h("label", null, t("why.node"), input), h("button", { class: "primary", type: "submit" }, t("why.ask")));
  const top = [head(title, t("why.lead")), form];
  if (!id) return { title, content: [...top, rules()] };
  const [detail, first] = await Promise.all([ask(`nodes/${id}`, {}, signal), ask(`nodes/${id}/tasks`, { unpaid: true, limit: 50 }, signal)]);
  const { node } = detail;
  /** @type {Map<string, number>} */
  const counts = new Map();
  for (const line of first.items) counts.set(line.reason, (counts.get(line.reason) ?? 0) + 1);
  const most = [...counts].sort((a, b) => b[1] - a[1]);
  const list = growing({
    first,
    more: (next) => ask(`nodes/${id}/tasks`, { unpaid: true, limit: 50, before: next }, signal),
    draw: (items) => lineTable(items, t("why.list"), true),
    empty: t("why.all-paid"),
  });
  const state = node.status === "gone" ? "gone" : node.status === "draining" ? (node.misses >= 2 ? "drained" : "draining") : node.tasks === 0 && node.open === 0 ? "never" : "fine";
  return {
    title,
    content: [
      ...top,
      h(
        "div",
        { class: "panel" },
        facts([
          [t("node"), [nodeLink(node.node), " ", statusTag(node.status)]],
          [t("node.model"), foreign(node.model, 80)],
          [t("node.owner"), account(node.owner)],
          [t("why.record"), t("why.record.n", { tasks: node.tasks, missed: node.missed, percent: node.tasks ? percent((node.missed / node.tasks) * 1e9) : "–" })],
          [t("node.claimable"), money(node.claimable, { named: true })],
        ]),
        h("div", { class: `notice ${state === "fine" ? "" : "warn"}` }, h("p", null, t(`why.state.${state}`)), has(`why.state.${state}.more`) ? h("p", { class: "muted" }, t(`why.state.${state}.more`)) : null),
        node.claimable !== "0" ? h("p", { class: "muted small" }, t("why.claim")) : null,
      ),
      most.length
        ? section(
            t("why.causes"),
            t("why.causes.note", { count: first.items.length }),
            null,
            h("div", { class: "panel" }, table({ caption: t("why.causes"), rows: most, columns: [{ label: t("why.times"), right: true, cell: ([, times]) => count(times) }, { label: t("why.cause"), class: "wide", cell: ([reason]) => [t(`reason.${reason}`, { ending: t("why.that-end") }), has(`advice.${reason}`) ? h("span", { class: "muted" }, ` ${t(`advice.${reason}`)}`) : null] }] })),
          )
        : h("span", { hidden: true }),
      section(t("why.list"), t("why.list.note"), null, list.node),
    ],
  };
}

/** What pays and what does not, for whoever has no number yet. */
function rules() {
  return section(t("why.rules"), null, null, h("div", { class: "panel" }, h("p", null, t("why.rules.formula")), h("p", null, t("why.rules.failures")), h("p", null, t("why.rules.drained")), h("p", { class: "muted" }, t("why.rules.more"))));
}
