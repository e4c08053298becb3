// @ts-check
import { ask } from "../api.js";
import { bars } from "../chart.js";
import { figures, h, section, table } from "../dom.js";
import { account, count, day, duration, money, plotted, taskLink, amount, unit } from "../format.js";
import { t } from "../i18n.js";
import { head, stateTag, steps, taskTable } from "../parts.js";

/** @type {(context: import("../app.js").Context) => Promise<import("../app.js").Page>} */
export async function page({ signal, status }) {
  const [overview, open, done] = await Promise.all([
    ask("overview", { days: 60 }, signal).catch((error) => { if (error.status === 404) return null; throw error; }),
    ask("tasks", { state: "open", limit: 20 }, signal),
    ask("tasks", { limit: 40 }, signal),
  ]);
  const title = t("overview.title");
  const top = head(title, t("overview.lead", { chain: status.network.chain }));
  if (!overview) return { title, content: [top, h("div", { class: "notice" }, h("p", null, t("overview.empty")), h("p", { class: "muted" }, t("overview.empty.more")))] };

  /** @type {Map<number, any>} */
  const rounds = new Map(open.items.map((/** @type {any} */ task) => [task.task, task]));
  const recent = done.items.filter((/** @type {any} */ task) => task.ending).slice(0, 8);
  const liveBox = h("div", { "aria-live": "polite", "aria-relevant": "additions" });
  const recentBox = h("div", null);
  /** @param {Set<number>} [fresh] */
  function drawRounds(fresh) {
    const rows = [...rounds.values()].sort((a, b) => b.task - a.task).slice(0, 20);
    const now = status.tip?.at ?? Date.now();
    const shown = rows.length
      ? table({
          caption: t("overview.rounds"),
          rows,
          key: (task) => String(task.task),
          columns: [
            { label: t("task"), cell: (task) => taskLink(task.task) },
            { label: t("overview.progress"), cell: (task) => (task.ending ? stateTag(task) : steps(task)) },
            { label: t("overview.now"), cell: (task) => (task.ending ? h("span", { class: "muted" }, t("overview.ended")) : t(`doing.${task.phase}`)) },
            { label: t("task.requester"), cell: (task) => account(task.requester) },
            { label: t("overview.scores"), right: true, cell: (task) => t("overview.of", { some: Math.max(task.committed, task.revealed), all: task.panel }) },
            { label: t("overview.due"), right: true, cell: (task) => (task.ending ? "" : task.deadline > now ? t("overview.in", { time: duration(task.deadline - now) }) : t("overview.overdue")) },
            { label: t("task.fee"), right: true, cell: (task) => money(task.fee, { digits: 2 }) },
          ],
        })
      : h("p", { class: "empty" }, t("overview.rounds.none"));
    for (const row of shown.querySelectorAll("tr[data-key]")) if (fresh?.has(Number(row.getAttribute("data-key")))) row.classList.add("new");
    liveBox.replaceChildren(shown);
  }
  function drawRecent() {
    recentBox.replaceChildren(recent.length ? taskTable(recent, t("overview.recent")) : h("p", { class: "empty" }, t("overview.recent.none")));
  }
  drawRounds();
  drawRecent();

  const days = [...overview.days].reverse();
  const settled = overview.settled + overview.refunded > 0 ? Math.round((overview.settled / (overview.settled + overview.refunded)) * 1000) / 10 : null;
  const content = [
    top,
    overview.paused ? h("div", { class: "notice warn" }, t("overview.paused")) : h("span", { hidden: true }),
    figures([
      [t("overview.tasks"), count(overview.settled), settled === null ? null : t("overview.tasks.note", { percent: settled })],
      [t("overview.paid"), money(overview.paid, { named: true, digits: 2 }), t("overview.paid.note", { keepers: amount(overview.keepers, 2), unit: unit.symbol })],
      [t("overview.staked"), money(overview.owes.stakes, { named: true, digits: 0 }), t("overview.staked.note")],
      [t("overview.nodes"), count(overview.inference + overview.evaluators), t("overview.nodes.note", { inference: overview.inference, evaluators: overview.evaluators })],
      [t("overview.burned"), money(overview.burned, { named: true, digits: 2 }), t("overview.burned.note")],
    ]),
    section(t("overview.rounds"), t("overview.rounds.note"), null, liveBox),
    h(
      "div",
      { class: "columns" },
      h("div", { class: "panel" }, h("h2", null, t("overview.by-day")), days.length ? bars({ label: t("overview.by-day"), series: [t("overview.settled"), t("overview.refunded")], days: days.map((one) => ({ label: day(one.day), values: [one.settled, one.refunded], shown: [count(one.settled), count(one.refunded)] })) }) : h("p", { class: "empty" }, t("chart.none"))),
      h("div", { class: "panel" }, h("h2", null, t("overview.money-by-day", { unit: unit.symbol })), days.length ? bars({ label: t("overview.money-by-day", { unit: unit.symbol }), series: [t("overview.to-nodes"), t("overview.fire")], days: days.map((one) => ({ label: day(one.day), values: [plotted(one.paid), plotted(one.burned)], shown: [amount(one.paid, 2), amount(one.burned, 2)] })) }) : h("p", { class: "empty" }, t("chart.none"))),
    ),
    section(t("overview.recent"), null, h("a", { href: "/tasks" }, t("overview.all")), recentBox),
  ];
  return {
    title,
    content,
    onNews: (news) => {
      status.tip = news.status.tip;
      const fresh = new Set();
      for (const task of [...news.tasks].reverse()) {
        fresh.add(task.task);
        if (task.ending) {
          const known = rounds.has(task.task);
          rounds.delete(task.task);
          if (known || !recent.some((/** @type {any} */ one) => one.task === task.task)) recent.unshift(task);
        } else {
          rounds.set(task.task, task);
        }
      }
      const seen = new Set();
      for (let at = 0; at < recent.length; ) { if (seen.has(recent[at].task)) recent.splice(at, 1); else { seen.add(recent[at].task); at += 1; } }
      recent.splice(8);
      drawRounds(fresh);
      if (fresh.size) drawRecent();
    },
  };
}
