// @ts-check
import { ask } from "../api.js";
import { foreign, h, table } from "../dom.js";
import { account, duration, money, nodeLink, percent } from "../format.js";
import { t } from "../i18n.js";
import { head } from "../parts.js";

/** @type {(context: import("../app.js").Context) => Promise<import("../app.js").Page>} */
export async function page({ signal }) {
  const pools = await ask("pools", {}, signal);
  const title = t("pools.title");
  const list = pools.length
    ? table({
        caption: title,
        rows: pools,
        sorted: 2,
        columns: [
          { label: t("pool"), class: "wide", cell: (pool) => [h("a", { href: `/pool/${pool.pool}` }, foreign(pool.name || pool.symbol || t("pool.unnamed"), 50)), h("br", null), h("span", { class: "small muted" }, t("pool.by"), " ", account(pool.manager))] },
          { label: t("node"), cell: (pool) => nodeLink(pool.node) },
          { label: t("pool.yield"), right: true, sort: (pool) => pool.yield_ppb ?? -2e9, cell: (pool) => (pool.yield_ppb === null ? h("span", { class: "muted" }, "–") : h("strong", null, percent(pool.yield_ppb))) },
          { label: t("pool.commission"), right: true, sort: (pool) => pool.state.ledger.terms.commission, cell: (pool) => percent(pool.state.ledger.terms.commission) },
          { label: t("pool.active"), right: true, sort: (pool) => BigInt(pool.active), cell: (pool) => money(pool.active, { digits: 2 }) },
          { label: t("pool.bond"), right: true, sort: (pool) => BigInt(pool.bond), cell: (pool) => money(pool.bond, { digits: 2 }) },
          { label: t("pool.exit-time"), right: true, cell: (pool) => duration(pool.state.rules.exit_ms) },
          { label: t("pool.room"), right: true, cell: (pool) => money(pool.state.room, { digits: 0 }) },
          { label: t("node.status"), cell: (pool) => h("span", { class: `tag ${pool.stage === "open" ? "good" : "warn"}` }, t(`stage.${pool.stage}`)) },
        ],
      })
    : h("p", { class: "empty" }, t("pools.none"));
  return { title, content: [head(title, t("pools.lead")), list, h("p", { class: "small muted" }, t("pools.note"))] };
}
