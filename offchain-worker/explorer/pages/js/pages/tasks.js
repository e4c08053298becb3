// @ts-check
import { ask } from "../api.js";
import { h } from "../dom.js";
import { t } from "../i18n.js";
import { growing, head, taskTable } from "../parts.js";

const STATES = ["", "open", "settled", "refunded"];

/** @type {(context: import("../app.js").Context) => Promise<import("../app.js").Page>} */
export async function page({ query, signal }) {
  const state = STATES.includes(query.get("state") ?? "") ? (query.get("state") ?? "") : "";
  const requester = query.get("requester") ?? "";
  const filter = { state, requester, limit: 50 };
  const first = await ask("tasks", filter, signal);
  const title = t("tasks.title");
  const list = growing({
    first,
    more: (next) => ask("tasks", { ...filter, before: next }, signal),
    draw: (items) => taskTable(items, title),
    empty: t("tasks.none"),
  });
  const path = (/** @type {string} */ one) => {
    const params = new URLSearchParams();
    if (one) params.set("state", one);
    if (requester) params.set("requester", requester);
    return params.size ? `/tasks?${params}` : "/tasks";
  };
  return {
    title,
    content: [
      head(title, requester ? t("tasks.of", { requester }) : t("tasks.lead"), h("div", { class: "segments", role: "group", "aria-label": t("task.state") }, STATES.map((one) => h("a", { href: path(one), "aria-current": one === state ? "true" : undefined }, t(`tasks.${one || "all"}`))))),
      list.node,
    ],
    onNews: (news) => {
      for (const task of news.tasks) {
        const at = list.items.findIndex((one) => one.task === task.task);
        if (at >= 0) list.items[at] = task;
        else if (!state && !requester && task.task > (list.items[0]?.task ?? 0)) list.items.unshift(task);
      }
      if (news.tasks.length) list.show();
    },
  };
}
