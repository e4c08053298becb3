// @ts-check
// What several pages show.
import { h, table } from "./dom.js";
import { account, money, nodeLink, ratioOf, taskLink, time } from "./format.js";
import { has, t } from "./i18n.js";

const PHASES = ["inferring", "drawing", "scoring", "revealing"];

/**
 * How a task stands, as a word.
 * @param {any} task
 */
export function stateTag(task) {
  if (task.phase === "settled") return h("span", { class: "tag good" }, t("phase.settled"));
  if (task.phase === "refunded") return h("span", { class: "tag bad" }, t(`ending.${task.ending}`));
  return h("span", { class: "tag" }, t(`phase.${task.phase}`));
}

/**
 * How far an open task has come.
 * @param {any} task
 */
export function steps(task) {
  const at = PHASES.indexOf(task.phase);
  const words = t("phase.step", { phase: t(`phase.${task.phase}`), step: at + 1, steps: PHASES.length });
  return h("span", { class: "steps", role: "img", "aria-label": words, title: words }, PHASES.map((_, step) => h("i", { class: at < 0 || step < at ? "done" : step === at ? "now" : undefined })));
}

/**
 * A list of tasks.
 * @param {any[]} tasks
 * @param {string} caption
 */
export function taskTable(tasks, caption) {
  return table({
    caption,
    rows: tasks,
    key: (task) => String(task.task),
    columns: [
      { label: t("task"), cell: (task) => taskLink(task.task) },
      { label: t("task.state"), cell: (task) => (task.ending ? stateTag(task) : [steps(task), " ", h("span", { class: "small muted" }, t(`phase.${task.phase}`))]) },
      { label: t("task.requester"), cell: (task) => account(task.requester) },
      { label: t("task.answers"), right: true, cell: (task) => String(task.outputs) },
      { label: t("task.panel"), right: true, cell: (task) => String(task.panel) },
      { label: t("task.quality"), right: true, cell: (task) => ratioOf(task.quality) },
      { label: t("task.fee"), right: true, cell: (task) => money(task.fee, { digits: 2 }) },
      { label: t("task.paid"), right: true, cell: (task) => (task.ending ? money(task.paid, { digits: 2 }) : h("span", { class: "muted" }, "–")) },
      { label: t("task.when"), right: true, cell: (task) => time(task.ended_at ?? task.requested_at) },
    ],
  });
}

/**
 * Why a node was paid what it was, in a sentence; with what can be done about it.
 * @param {any} line
 */
export function reason(line) {
  const gaps = { ending: t(`ending.${line.ending || "consensus"}`) };
  const advice = `advice.${line.reason}`;
  return h("span", null, t(`reason.${line.reason}`, gaps), has(advice) ? h("span", { class: "muted" }, ` ${t(advice)}`) : null);
}

/**
 * A node's tasks.
 * @param {any[]} lines
 * @param {string} caption
 * @param {boolean} why whether to spell out each reason
 */
export function lineTable(lines, caption, why = false) {
  return table({
    caption,
    rows: lines,
    columns: [
      { label: t("task"), cell: (line) => taskLink(line.task) },
      { label: t("line.when"), cell: (line) => time(line.at) },
      { label: t("line.conduct"), cell: (line) => t(`conduct.${line.conduct}`) },
      { label: t("line.value"), right: true, cell: (line) => ratioOf(line.quality) },
      { label: t("line.cost"), right: true, cell: (line) => ratioOf(line.cost) },
      { label: t("line.net"), right: true, cell: (line) => ratioOf(line.net) },
      { label: t("line.payout"), right: true, cell: (line) => money(line.payout) },
      { label: t("line.slashed"), right: true, cell: (line) => (line.slashed === "0" ? h("span", { class: "muted" }, "–") : money(line.slashed)) },
      { label: t("line.why"), class: "wide", hidden: !why, cell: (line) => reason(line) },
    ],
  });
}

/**
 * Nodes as a table.
 * @param {any[]} nodes
 * @param {string} caption
 */
export function nodeTable(nodes, caption) {
  return table({
    caption,
    rows: nodes,
    columns: [
      { label: t("node"), cell: (node) => nodeLink(node.node) },
      { label: t("node.role"), cell: (node) => t(`role.${node.role}`) },
      { label: t("node.tasks"), right: true, cell: (node) => String(node.tasks) },
      { label: t("node.earned"), right: true, cell: (node) => money(node.earned) },
      { label: t("node.claimable"), right: true, cell: (node) => money(node.claimable) },
      { label: t("node.bonded"), right: true, cell: (node) => money(node.bonded, { digits: 2 }) },
      { label: t("node.slashed"), right: true, cell: (node) => money(node.slashed) },
      { label: t("node.status"), cell: (node) => statusTag(node.status) },
    ],
  });
}

/** @param {string} status */
export function statusTag(status) {
  return h("span", { class: `tag ${status === "active" ? "good" : status === "gone" ? "" : "warn"}` }, t(`status.${status}`));
}

/**
 * A list that goes on when asked to.
 * @param {{ first: any, more: (next: string) => Promise<any>, draw: (items: any[]) => Node, empty: string }} options
 */
export function growing({ first, more, draw, empty }) {
  const items = [...first.items];
  let next = first.next;
  const place = h("div", null);
  const button = h("button", { type: "button", on: { click: async () => {
    button.disabled = true;
    try {
      const page = await more(next);
      items.push(...page.items);
      next = page.next;
    } finally {
      button.disabled = false;
      show();
    }
  } } }, t("list.more"));
  const foot = h("p", null, button);
  function show() {
    place.replaceChildren(items.length ? draw(items) : h("p", { class: "empty" }, empty));
    foot.hidden = next === null || next === undefined;
  }
  show();
  return { node: h("div", null, place, foot), items, show };
}

/**
 * The page's head.
 * @param {string} title
 * @param {import("./dom.js").Children} [lead]
 * @param {import("./dom.js").Children} [beside]
 */
export function head(title, lead, beside) {
  return h("div", { class: "head" }, h("div", { class: "row" }, h("h1", { tabindex: "-1" }, title), beside), lead ? h("p", { class: "lead" }, lead) : null);
}
